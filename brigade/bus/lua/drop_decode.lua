-- A decode worker lets go of a job: its entry goes, and if the record still gives it the job, the owner is told with the
-- given part (rule 10), so that a failed pull ends like a finish. ARGV: worker, request id, attempt, decode entry id, part.
-- Answers 'REPORTED' (also when it was reported before) or 'STALE'.
local w, id, attempt, dentry, part = unpack(ARGV)
local r = record(id)
drop_decode_entry(w, dentry)
if is_stale(r, attempt) or r.holder ~= w or not (r.state == 'HANDED' or r.state == 'DECODING') then return 'STALE' end
if r.dentry == '' then return 'REPORTED' end
if r.dentry ~= dentry then return 'STALE' end
publish(r.owner, part)
redis.call('HSET', req_key(id), 'dentry', '')
return 'REPORTED'
