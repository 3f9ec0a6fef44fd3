-- Take or renew the balancer's lease. ARGV: nonce, TTL in ms, resign (1). Answers the term, or 0 when another leads. The term is
-- a permanent counter of its own (rule 18).
local nonce, ttl_ms, resign = unpack(ARGV)
local lease = P .. 'leader:balancer'
local held = redis.call('HGET', lease, 'nonce')
if held == nonce then
  if resign == '1' then
    redis.call('DEL', lease)
    return 0
  end
  redis.call('PEXPIRE', lease, ttl_ms)
  return tonumber(redis.call('HGET', lease, 'term'))
end
if held or resign == '1' then return 0 end
local term = redis.call('INCR', P .. 'term')
redis.call('HSET', lease, 'nonce', nonce, 'term', term)
redis.call('PEXPIRE', lease, ttl_ms)
return term
