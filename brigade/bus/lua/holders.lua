-- What an owner watches: where its requests stand. ARGV: request ids.
-- Answers per id: {state ('' = no record), attempt, holder, 1 when the holder's heartbeat is there or there is no holder}.
local out = {}
for i = 1, #ARGV do
  local r = record(ARGV[i])
  local ok = r.holder == '' or worker_alive(r.holder)
  out[#out + 1] = { r.state or '', r.attempt, r.holder, ok and 1 or 0 }
end
return out
