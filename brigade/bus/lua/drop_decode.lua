-- A decode worker lets go of a job: its entry goes, and if the record still gives it the job, the record loses its holder and
-- the owner is told with the given part (rule 10). Should that frame be lost, the owner sees a record without a holder.
-- ARGV: worker, request id, attempt, decode entry id, part. Answers 'REPORTED' (also when it was reported before) or 'STALE'.
local w, id, attempt, dentry, part = unpack(ARGV)
local r = record(id)
drop_decode_entry(w, dentry)
if is_stale(r, attempt) or not (r.state == 'HANDED' or r.state == 'DECODING') then return 'STALE' end
if r.holder == '' and r.dentry == '' then return 'REPORTED' end
if r.holder ~= w or r.dentry ~= dentry then return 'STALE' end
publish(r.owner, part)
redis.call('HSET', req_key(id), 'holder', '', 'dentry', '')
return 'REPORTED'
