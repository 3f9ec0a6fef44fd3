-- Decode jobs whose KV is in place join the batch. ARGV: worker, then per job: request id, attempt, decode entry id.
-- Answers per job: 'OK' (also when it was admitted here before), 'STALE' (its entry is dropped) or 'NO_OWNER'.
local w = ARGV[1]
local out = {}
for i = 2, #ARGV, 3 do
  local id, attempt, dentry = unpack(ARGV, i, i + 2)
  local r = record(id)
  local status = 'STALE'
  if not is_stale(r, attempt) and r.holder == w and r.dentry == dentry then
    if r.state == 'DECODING' then
      status = 'OK'
    elseif r.state == 'HANDED' then
      if router_alive(r.owner) then
        status = 'OK'
        redis.call('HSET', req_key(id), 'state', 'DECODING', 't_admitted', now())
        if r.prefiller ~= w then hint(r.prefiller, 'release', id, attempt) end
      else
        status = 'NO_OWNER'
      end
    end
  end
  if status == 'STALE' then drop_decode_entry(w, dentry) end
  out[#out + 1] = status
end
return out
