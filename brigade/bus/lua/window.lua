-- The oldest waiting entries of some streams, parked at the consumer `inbox` if they were not yet. ARGV: limit per stream,
-- then stream names. Answers a flat list: stream, entry id, job, … A policy may then claim any of them, in any order.
local limit = tonumber(ARGV[1])
local out = {}
for i = 2, #ARGV do
  local key = P .. ARGV[i]
  if redis.call('XLEN', key) > 0 then
    local parked = redis.pcall('XPENDING', key, 'prefill', '-', '+', limit, 'inbox')
    if parked.err then -- a forgetful Redis has the stream but not the group
      redis.call('XGROUP', 'CREATE', key, 'prefill', '0')
      parked = {}
    end
    if #parked < limit then
      redis.call('XREADGROUP', 'GROUP', 'prefill', 'inbox', 'COUNT', limit - #parked, 'STREAMS', key, '>')
      parked = redis.call('XPENDING', key, 'prefill', '-', '+', limit, 'inbox')
    end
    for _, p in ipairs(parked) do
      local e = redis.call('XRANGE', key, p[1], p[1])[1]
      if not e then
        redis.call('XACK', key, 'prefill', p[1])
      else
        local job = ''
        for f = 1, #e[2], 2 do if e[2][f] == 'j' then job = e[2][f + 1] end end
        out[#out + 1] = ARGV[i]
        out[#out + 1] = p[1]
        out[#out + 1] = job
      end
    end
  end
end
return out
