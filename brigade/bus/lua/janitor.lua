-- Cleans up after processes without a heartbeat; any router or balancer runs it (rules 13, 14). It gives nothing back: only an
-- owner starts anew. ARGV: TTL in ms for cancelled records, number of suspects (-1: whoever is absent), suspects, then the
-- queue streams. Answers {requests cancelled, entries dropped, workers left, routers left, all ids that were absent}.
local ttl_ms, num_suspects = ARGV[1], tonumber(ARGV[2])
local suspects, absent = {}, {}
for i = 3, 2 + num_suspects do suspects[ARGV[i]] = true end
local first_stream = 3 + math.max(0, num_suspects)
local function may_sweep(id)
  absent[#absent + 1] = id
  return num_suspects < 0 or suspects[id]
end
local cancelled, dropped, workers_left, routers_left = 0, 0, 0, 0
for _, router in ipairs(redis.call('SMEMBERS', P .. 'routers')) do
  if not router_alive(router) and may_sweep(router) then
    for _, id in ipairs(redis.call('SMEMBERS', P .. 'owned:' .. router)) do
      local r = record(id)
      if r.live then
        drop_entries(r)
        hint(r.holder, 'drop', id, r.attempt)
        end_record(id, router, 'CANCELLED', ttl_ms, 'its router is gone')
        cancelled = cancelled + 1
      end
    end
    redis.call('DEL', P .. 'owned:' .. router, P .. 'tokens:' .. router)
    redis.call('SREM', P .. 'routers', router)
    routers_left = routers_left + 1
  end
end
local function fields(e)
  local f = {}
  for k = 1, #e[2], 2 do f[e[2][k]] = e[2][k + 1] end
  return f
end
for _, w in ipairs(redis.call('SMEMBERS', P .. 'workers')) do
  if not worker_alive(w) and may_sweep(w) then
    local left = 0
    for i = first_stream, #ARGV do
      local key = P .. ARGV[i]
      local pending = redis.call('EXISTS', key) == 1 and redis.pcall('XPENDING', key, 'prefill', '-', '+', 1000, w) or {}
      if pending.err then pending = {} end
      if #pending == 1000 then left = left + 1 end -- a full page: look again before anything is deleted
      for _, p in ipairs(pending) do
        local e = redis.call('XRANGE', key, p[1], p[1])[1]
        local f = e and fields(e)
        local r = e and record(f.r)
        if not e or is_stale(r, f.a) or r.holder ~= w then
          drop_prefill_entry(ARGV[i], p[1])
          dropped = dropped + 1
        else
          left = left + 1
        end
      end
    end
    local jobs = redis.call('XRANGE', P .. 'decode:' .. w, '-', '+', 'COUNT', 1000)
    if #jobs == 1000 then left = left + 1 end
    for _, e in ipairs(jobs) do
      local f = fields(e)
      local r = record(f.r)
      if is_stale(r, f.a) or r.holder ~= w then
        drop_decode_entry(w, e[1])
        dropped = dropped + 1
      else
        left = left + 1
      end
    end
    if left == 0 then
      redis.call('DEL', P .. 'decode:' .. w, P .. 'control:' .. w, P .. 'role:' .. w)
      for i = first_stream, #ARGV do
        if redis.call('EXISTS', P .. ARGV[i]) == 1 then redis.pcall('XGROUP', 'DELCONSUMER', P .. ARGV[i], 'prefill', w) end
      end
      redis.call('SREM', P .. 'workers', w)
      workers_left = workers_left + 1
    end
  end
end
return { cancelled, dropped, workers_left, routers_left, absent }
