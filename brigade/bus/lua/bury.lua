-- An entry that nobody can read goes to the dead-letter stream and off its own. If it is the living attempt's, the owner is
-- told with the given part, as of a failed pull (rule 10): else its request would wait for ever. Should that frame be lost, it
-- sees a record that is not QUEUED and has no holder. ARGV: group, stream or (group
-- 'decode') worker, entry id, source, reason, data, request id and attempt by the entry's own fields, part.
-- Answers 'BURIED', or 'ALREADY' when the entry has gone.
local group, stream, entry, source, reason, data, id, attempt, part = unpack(ARGV)
local key = group == 'decode' and P .. 'decode:' .. stream or P .. stream
redis.call('XACK', key, group, entry)
if redis.call('XDEL', key, entry) == 0 then return 'ALREADY' end
redis.call('XADD', P .. 'dead', 'MAXLEN', '~', 1000, '*', 'source', source, 'reason', reason, 'data', data)
local r = record(id)
if not is_stale(r, attempt) then
  if group == 'prefill' and r.entry == entry then
    redis.call('HSET', req_key(id), 'state', 'PREFILLING', 'holder', '', 'entry', '')
    publish(r.owner, part)
  elseif group == 'decode' and r.dentry == entry then
    redis.call('HSET', req_key(id), 'holder', '', 'dentry', '')
    publish(r.owner, part)
  end
end
return 'BURIED'
