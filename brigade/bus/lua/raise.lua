-- The owner starts the next attempt (rules 2, 6). ARGV: router, id, attempt it believes in, new attempt, force (leave to
-- reopen FINISHED and to make a missing record), spec, class, stream, arrival, number of prompt tokens, prefix, job.
-- Answers 'RAISED', 'ALREADY' (by this owner, before), a terminal state, 'MISSING', 'NOT_OWNER', 'AHEAD', or 'NO_OWNER' when the
-- router itself is not registered.
local router, id, believed, new, force, spec, class, stream, arrival, nprompt, prefix, job = unpack(ARGV)
if not router_alive(router) then return 'NO_OWNER' end
believed, new, force = tonumber(believed), tonumber(new), force == '1'
local r = record(id)
if r.exists then
  if r.owner ~= router then return 'NOT_OWNER' end
  if r.attempt > new then return 'AHEAD' end
  if r.state == 'CANCELLED' or r.state == 'FAILED' then return r.state end
  if r.attempt == new then return 'ALREADY' end
  if r.state == 'FINISHED' and not force then return 'FINISHED' end
  if r.attempt ~= believed and not force then return 'AHEAD' end
  drop_entries(r)
  if r.state ~= 'FINISHED' and r.state ~= 'QUEUED' then hint(r.holder, 'drop', id, r.attempt) end
elseif not force then
  return 'MISSING'
end
redis.call('HSET', req_key(id), 'state', 'QUEUED', 'attempt', new, 'holder', '', 'owner', router, 'spec', spec, 'class', class,
  'arrival', arrival, 'nprompt', nprompt, 'prefix', prefix, 'prefiller', '', 'dentry', '', 'reason', '')
redis.call('PERSIST', req_key(id))
redis.call('SADD', P .. 'owned:' .. router, id)
enqueue(id, new, stream, job)
return 'RAISED'
