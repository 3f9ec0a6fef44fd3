-- A drained worker takes its new role (rule 8). ARGV: worker, role, epoch, then the queue streams.
-- Answers 'OK', 'BUSY' when anything is still on its decode stream or pending for it, or 'LAPSED'.
local w, role, epoch = ARGV[1], ARGV[2], ARGV[3]
if not worker_alive(w) then return 'LAPSED' end
if redis.call('XLEN', P .. 'decode:' .. w) > 0 then return 'BUSY' end
for i = 4, #ARGV do
  local key = P .. ARGV[i]
  if redis.call('EXISTS', key) == 1 and #redis.call('XPENDING', key, 'prefill', '-', '+', 1, w) > 0 then return 'BUSY' end
end
redis.call('HSET', P .. 'worker:' .. w, 'role', role, 'epoch', epoch, 'accepting', 1, 't_switched', now())
return 'OK'
