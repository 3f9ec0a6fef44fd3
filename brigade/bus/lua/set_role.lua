-- The leading balancer writes a desired role (rule 18). ARGV: nonce, term, worker, role, highest epoch the balancer has seen.
-- Answers the epoch, or 'NOT_LEADER' / 'UNKNOWN_WORKER' / 'DEAD_WORKER'.
local nonce, term, w, role, seen = unpack(ARGV)
local lease = redis.call('HMGET', P .. 'leader:balancer', 'nonce', 'term')
if lease[1] ~= nonce or lease[2] ~= term then return 'NOT_LEADER' end
if redis.call('SISMEMBER', P .. 'workers', w) == 0 then return 'UNKNOWN_WORKER' end
local actual = tonumber(redis.call('HGET', P .. 'worker:' .. w, 'epoch') or '-1')
if actual < 0 then return 'DEAD_WORKER' end
local desired = tonumber(redis.call('HGET', P .. 'role:' .. w, 'epoch') or '0')
-- Decided already, by this call or before it: the same wish needs no new epoch.
if desired >= actual and desired > tonumber(seen) and redis.call('HGET', P .. 'role:' .. w, 'role') == role then return desired end
local epoch = math.max(actual, desired, tonumber(seen)) + 1
redis.call('HSET', P .. 'role:' .. w, 'role', role, 'epoch', epoch, 't_desired', now())
hint(w, 'role', '', 0)
return epoch
