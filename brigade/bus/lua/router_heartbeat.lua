-- A router says that it lives. ARGV: router, TTL in ms, status, first (1 = it registers). Answers 'OK', or 'DRAINED' when the
-- janitor has cancelled what it owned: it ends its clients' streams and registers under a new id (rule 13). A lease that lapsed
-- while no janitor looked (an outage took all heartbeats) just goes on.
local router, ttl_ms, status, first = unpack(ARGV)
if first ~= '1' and redis.call('SISMEMBER', P .. 'routers', router) == 0 then return 'DRAINED' end
redis.call('SADD', P .. 'routers', router)
redis.call('SET', P .. 'router:' .. router, status, 'PX', ttl_ms)
if redis.call('EXISTS', P .. 'tokens:' .. router) == 0 then
  redis.call('XADD', P .. 'tokens:' .. router, '*', 'p', '')
end
return 'OK'
