-- A process leaves in good order. ARGV: kind ('worker' | 'router'), id. Its heartbeat ends at once; the janitor does the rest.
redis.call('DEL', P .. ARGV[1] .. ':' .. ARGV[2])
return 'OK'
