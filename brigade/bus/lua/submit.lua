-- Record new requests and publish their prefill jobs. ARGV: router, then per request: id, spec, class, stream, arrival,
-- number of prompt tokens, job. Answers 'OK' (also for those recorded before), 'NO_OWNER' when the router itself is not
-- registered, or 'NOT_OWNER' when another router has recorded one of these ids.
local router = ARGV[1]
if not router_alive(router) then return 'NO_OWNER' end
for i = 2, #ARGV, 7 do
  local r = record(ARGV[i])
  if r.exists and r.owner ~= router then return 'NOT_OWNER' end
end
for i = 2, #ARGV, 7 do
  local id, spec, class, stream, arrival, nprompt, job = unpack(ARGV, i, i + 6)
  if redis.call('EXISTS', req_key(id)) == 0 then
    redis.call('HSET', req_key(id), 'state', 'QUEUED', 'attempt', 1, 'holder', '', 'owner', router, 'spec', spec, 'class', class,
      'arrival', arrival, 'nprompt', nprompt, 'prefix', '')
    redis.call('SADD', P .. 'owned:' .. router, id)
    enqueue(id, 1, stream, job)
  end
end
return 'OK'
