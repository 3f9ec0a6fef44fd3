-- The owner ends a request itself: a stop string, a complete prefix, a cancel, a failure, or the same again after Redis
-- forgot (rule 2e). The owner's word is final: no raise that it sent before may come later and reopen it (rule 22), so even a
-- record that has ended takes the highest attempt. ARGV: router, id, highest attempt ever used, state, reason, TTL in ms. Answers the state that holds.
local router, id, attempt, state, reason, ttl_ms = unpack(ARGV)
attempt = tonumber(attempt)
local r = record(id)
if r.exists then
  if r.owner ~= router then return 'NOT_OWNER' end
  if not r.live then
    if attempt > r.attempt then redis.call('HSET', req_key(id), 'attempt', attempt) end
    return r.state
  end
  drop_entries(r)
  hint(r.holder, 'drop', id, r.attempt)
  if r.attempt > attempt then attempt = r.attempt end
end
redis.call('HSET', req_key(id), 'attempt', attempt, 'owner', router, 'holder', '')
end_record(id, router, state, ttl_ms, reason)
if state == 'FAILED' then
  redis.call('XADD', P .. 'dead', 'MAXLEN', '~', 1000, '*', 'source', 'req:' .. id, 'reason', reason, 'data', '')
end
return state
