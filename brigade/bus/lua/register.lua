-- A worker enters the registry, or comes back after its heartbeat had ended. ARGV: worker, TTL in ms, role, epoch, status.
-- Answers {desired role or '', desired epoch}.
local w, ttl_ms, role, epoch, status = unpack(ARGV)
redis.call('SADD', P .. 'workers', w)
-- an epoch never goes down: this call may come late, after a switch
if tonumber(redis.call('HGET', P .. 'worker:' .. w, 'epoch') or '-1') <= tonumber(epoch) then
  redis.call('HSET', P .. 'worker:' .. w, 'role', role, 'epoch', epoch, 'accepting', 1, 'status', status)
end
redis.call('PEXPIRE', P .. 'worker:' .. w, ttl_ms)
local decode = P .. 'decode:' .. w
local group = redis.pcall('XGROUP', 'CREATE', decode, 'decode', '0', 'MKSTREAM')
if group.err and not string.find(group.err, 'BUSYGROUP') then return group end
if redis.call('EXISTS', P .. 'control:' .. w) == 0 then
  redis.call('XADD', P .. 'control:' .. w, '*', 'k', 'role', 'r', '', 'a', 0)
end
local d = redis.call('HMGET', P .. 'role:' .. w, 'role', 'epoch')
return { d[1] or '', tonumber(d[2] or '0') }
