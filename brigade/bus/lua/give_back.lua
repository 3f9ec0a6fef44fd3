-- A prefill worker returns what it will not run. ARGV: worker, then per entry: stream, entry id, request id, attempt.
-- Writing QUEUED, clearing the holder and parking the entry again are one step (rule 1). Answers the number given back.
local w = ARGV[1]
local n = 0
for i = 2, #ARGV, 4 do
  local stream, entry, id, attempt = unpack(ARGV, i, i + 3)
  local r = record(id)
  if is_stale(r, attempt) then
    drop_prefill_entry(stream, entry)
  elseif r.state == 'PREFILLING' and r.holder == w then
    redis.call('HSET', req_key(id), 'state', 'QUEUED', 'holder', '')
    redis.call('XCLAIM', P .. stream, 'prefill', 'inbox', 0, entry, 'JUSTID')
    n = n + 1
  end
end
if n > 0 then wake() end
return n
