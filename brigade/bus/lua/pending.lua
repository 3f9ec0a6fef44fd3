-- What a worker's decode stream has delivered to it and nobody has ended; changes nothing. ARGV: worker. Answers entry ids.
local w = ARGV[1]
local out = {}
local pending = redis.pcall('XPENDING', P .. 'decode:' .. w, 'decode', '-', '+', 10000, w)
if pending.err then return pending end
for _, p in ipairs(pending) do out[#out + 1] = p[1] end
return out
