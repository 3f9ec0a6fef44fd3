-- After an error on a connection a worker looks at its own pending prefill entries (rule 4). ARGV: worker, stream names.
-- Drops the stale ones; answers the others as {stream, entry id, job, spec, prefix, owner}.
local w = ARGV[1]
local out = {}
for i = 2, #ARGV do
  local key = P .. ARGV[i]
  local pending = redis.call('EXISTS', key) == 1 and redis.pcall('XPENDING', key, 'prefill', '-', '+', 10000, w) or {}
  if pending.err then pending = {} end -- the group has gone with what it knew
  for _, p in ipairs(pending) do
    local e = redis.call('XRANGE', key, p[1], p[1])[1]
    local f = {}
    if e then for k = 1, #e[2], 2 do f[e[2][k]] = e[2][k + 1] end end
    local r = e and record(f.r)
    if e and not is_stale(r, f.a) and r.state == 'PREFILLING' and r.holder == w and r.entry == p[1] then
      local v = redis.call('HMGET', req_key(f.r), 'spec', 'prefix')
      out[#out + 1] = { ARGV[i], p[1], f.j, v[1], v[2], r.owner }
    else
      drop_prefill_entry(ARGV[i], p[1])
    end
  end
end
return out
