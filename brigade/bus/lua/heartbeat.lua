-- A worker says that it lives; it never writes role, epoch or accepting here (rule 8). ARGV: worker, TTL in ms, status, then
-- per thing it holds: kind, request id, attempt. Kinds: 'run' (a prefill or decode job), 'loan' (lent blocks).
-- Answers {'OK' | 'LAPSED' (register again) | 'DRAINED' (take a new id), desired role, desired epoch, verdicts}; a verdict is
-- 'k' keep, 'x' drop (rule 16) or, of a loan, 'x' its end by the record (rule 11), 'd' the reader's heartbeat has gone.
local w, ttl_ms, status = ARGV[1], ARGV[2], ARGV[3]
if redis.call('SISMEMBER', P .. 'workers', w) == 0 then return { 'DRAINED', '', 0, '' } end
if not worker_alive(w) then return { 'LAPSED', '', 0, '' } end
redis.call('HSET', P .. 'worker:' .. w, 'status', status)
redis.call('PEXPIRE', P .. 'worker:' .. w, ttl_ms)
local verdicts = {}
for i = 4, #ARGV, 3 do
  local kind, id, attempt = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local r = record(id)
  local v = 'k'
  if is_stale(r, attempt) then
    v = 'x'
  elseif kind == 'loan' and r.holder ~= w then
    if r.state == 'DECODING' then
      v = 'x'
    elseif r.holder ~= '' and not worker_alive(r.holder) then
      v = 'd'
    end
  end
  verdicts[#verdicts + 1] = v
end
local d = redis.call('HMGET', P .. 'role:' .. w, 'role', 'epoch')
return { 'OK', d[1] or '', tonumber(d[2] or '0'), table.concat(verdicts) }
