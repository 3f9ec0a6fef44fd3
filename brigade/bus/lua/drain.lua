-- A worker enters DRAINING: from here hand-overs and its own claims are refused (rule 8). ARGV: worker.
-- Answers 1, or 0 when it is not registered (it registers again first).
if not worker_alive(ARGV[1]) then return 0 end
redis.call('HSET', P .. 'worker:' .. ARGV[1], 'accepting', 0)
return 1
