-- A drained worker takes its new role (rule 8). ARGV: worker, role, epoch, then the queue streams.
-- Answers 'OK' (also when it has that role under that epoch already: work may have come since), 'BUSY' when anything is still on its decode stream or pending for it, or 'LAPSED'.
local w, role, epoch = ARGV[1], ARGV[2], ARGV[3]
local reg = redis.call('HMGET', P .. 'worker:' .. w, 'role', 'epoch', 'accepting')
if not reg[1] then return 'LAPSED' end
if reg[1] == role and reg[2] == epoch and reg[3] == '1' then return 'OK' end
if redis.call('XLEN', P .. 'decode:' .. w) > 0 then return 'BUSY' end
for i = 4, #ARGV do
  local key = P .. ARGV[i]
  if redis.call('EXISTS', key) == 1 and #redis.pcall('XPENDING', key, 'prefill', '-', '+', 1, w) > 0 then return 'BUSY' end
end
redis.call('HSET', P .. 'worker:' .. w, 'role', role, 'epoch', epoch, 'accepting', 1, 't_switched', now())
return 'OK'
