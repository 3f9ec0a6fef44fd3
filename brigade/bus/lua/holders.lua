-- What an owner watches: where its requests stand. ARGV: request ids.
-- Answers per id: {state ('' = no record), attempt, holder, 1 when the holder's heartbeat is there or there is no holder}.
local alive = { [''] = 1 }
local out = {}
for i = 1, #ARGV do
  local v = redis.call('HMGET', req_key(ARGV[i]), 'state', 'attempt', 'holder')
  local holder = v[3] or ''
  if not alive[holder] then alive[holder] = worker_alive(holder) and 1 or 0 end
  out[#out + 1] = { v[1] or '', tonumber(v[2] or '0'), holder, alive[holder] }
end
return out
