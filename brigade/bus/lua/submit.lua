-- Record new requests and publish their prefill jobs. ARGV: router, then per request: id, spec, class, stream, arrival,
-- number of prompt tokens, job. Answers 'OK', or 'NO_OWNER' when the router itself is not registered.
local router = ARGV[1]
if not router_alive(router) then return 'NO_OWNER' end
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
