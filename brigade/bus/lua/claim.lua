-- A prefill worker takes exactly these entries. ARGV: worker, then per entry: stream, entry id, request id, attempt.
-- Answers per entry {status, spec, prefix, owner}: 'OK' (also when it was ours already), 'TAKEN', 'STALE' (dropped),
-- 'NO_OWNER'; or one {'NO_HEARTBEAT'} / {'NOT_ACCEPTING'} for all (rule 12).
local w = ARGV[1]
local reg = redis.call('HMGET', P .. 'worker:' .. w, 'role', 'accepting')
if not reg[1] then return { { 'NO_HEARTBEAT' } } end
if reg[2] ~= '1' or reg[1] == 'decode' then return { { 'NOT_ACCEPTING' } } end
local out = {}
for i = 2, #ARGV, 4 do
  local stream, entry, id, attempt = unpack(ARGV, i, i + 3)
  local key = P .. stream
  local pending = redis.pcall('XPENDING', key, 'prefill', entry, entry, 1)[1] -- no group: Redis forgot, nothing is pending
  local r = record(id)
  local status = 'OK'
  if is_stale(r, attempt) then
    drop_prefill_entry(stream, entry)
    status = 'STALE'
  elseif r.state == 'PREFILLING' and r.holder == w and r.entry == entry then
    status = 'OK'
  elseif not pending or pending[2] ~= 'inbox' then
    status = 'TAKEN'
  elseif r.state ~= 'QUEUED' or r.entry ~= entry then
    drop_prefill_entry(stream, entry) -- published twice
    status = 'STALE'
  elseif not router_alive(r.owner) then
    status = 'NO_OWNER'
  else
    redis.call('XCLAIM', key, 'prefill', w, 0, entry, 'JUSTID')
    redis.call('HSET', req_key(id), 'state', 'PREFILLING', 'holder', w, 'prefiller', w, 't_claimed', now())
  end
  if status == 'OK' then
    local v = redis.call('HMGET', req_key(id), 'spec', 'prefix')
    out[#out + 1] = { 'OK', v[1], v[2], r.owner }
  else
    out[#out + 1] = { status }
  end
end
return out
