-- The end of a prefill, one transaction: first token to the owner, decode job to the target, state, entry gone. If the
-- first token is the last (rule 7) it is the finish instead. ARGV: worker, stream, entry id, request id, attempt, frame part,
-- target ('' = finish), target's epoch, decode job, TTL in ms.
-- Answers 'DONE', 'ALREADY' (done by this worker before), 'STALE' (a stale entry is dropped), 'TARGET' (place it elsewhere), 'NO_OWNER'.
local w, stream, entry, id, attempt, part, target, epoch, job, ttl_ms = unpack(ARGV)
local r = record(id)
if r.exists and r.attempt == tonumber(attempt) and r.prefiller == w and r.entry == ''
  and r.state ~= 'QUEUED' and r.state ~= 'PREFILLING' and r.state ~= 'CANCELLED' and r.state ~= 'FAILED' then
  return 'ALREADY'
end
if is_stale(r, attempt) or r.state ~= 'PREFILLING' or r.holder ~= w then
  -- given back, or claimed by another: the entry is the living attempt's own
  if is_stale(r, attempt) or r.entry ~= entry then drop_prefill_entry(stream, entry) end
  return 'STALE'
end
if not router_alive(r.owner) then return 'NO_OWNER' end
if target == '' then
  publish(r.owner, part)
  redis.call('HSET', req_key(id), 'entry', '')
  end_record(id, r.owner, 'FINISHED', ttl_ms, '')
else
  local t = redis.call('HMGET', P .. 'worker:' .. target, 'role', 'accepting', 'epoch')
  if not t[1] or t[1] == 'prefill' or t[2] ~= '1' or t[3] ~= epoch then return 'TARGET' end
  local dentry = deliver(target, id, attempt, job)
  if not dentry then return 'TARGET' end
  publish(r.owner, part)
  redis.call('HSET', req_key(id), 'state', 'HANDED', 'holder', target, 'dentry', dentry, 'entry', '', 't_handed', now())
end
drop_prefill_entry(stream, entry)
return 'DONE'
