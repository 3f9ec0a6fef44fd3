-- A running decode moves to another decode worker (rule 9), one transaction. ARGV: worker, request id, attempt, decode entry
-- id, frame part of tokens not yet published ('' = none), target, target's epoch, decode job.
-- Answers 'DONE', 'ALREADY', 'TARGET' (it may step on here) or 'STALE' (the attempt has moved on: free its blocks).
local w, id, attempt, dentry, part, target, epoch, job = unpack(ARGV)
local r = record(id)
if not is_stale(r, attempt) and r.holder ~= w and r.prefiller == w and (r.state == 'HANDED' or r.state == 'DECODING') then
  return 'ALREADY'
end
local ours = not is_stale(r, attempt) and r.holder == w and r.dentry == dentry
if not ours or r.state ~= 'DECODING' then
  if not (ours and r.state == 'HANDED') then drop_decode_entry(w, dentry) end
  return 'STALE'
end
local t = redis.call('HMGET', P .. 'worker:' .. target, 'role', 'accepting', 'epoch')
if not t[1] or t[1] == 'prefill' or t[2] ~= '1' or t[3] ~= epoch then return 'TARGET' end
local new_entry = deliver(target, id, attempt, job)
if not new_entry then return 'TARGET' end
if part ~= '' then publish(r.owner, part) end
redis.call('HSET', req_key(id), 'state', 'HANDED', 'holder', target, 'prefiller', w, 'dentry', new_entry, 't_handed', now())
drop_decode_entry(w, dentry)
return 'DONE'
