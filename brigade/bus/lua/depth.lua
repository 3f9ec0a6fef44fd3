-- One page of a queue stream, for an operator; changes nothing. ARGV: stream, start as XRANGE takes it, most entries.
-- Answers a flat list: entry id, job, 1 when a worker has claimed it, …
local key, start, limit = P .. ARGV[1], ARGV[2], ARGV[3]
local out = {}
for _, e in ipairs(redis.call('XRANGE', key, start, '+', 'COUNT', limit)) do
  local pending = redis.pcall('XPENDING', key, 'prefill', e[1], e[1], 1)[1]
  local job = ''
  for f = 1, #e[2], 2 do if e[2][f] == 'j' then job = e[2][f + 1] end end
  out[#out + 1] = e[1]
  out[#out + 1] = job
  out[#out + 1] = pending and pending[2] ~= 'inbox' and 1 or 0
end
return out
