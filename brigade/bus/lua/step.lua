-- The frames of one decode step, one per router, with the finishes in it. ARGV: worker, TTL in ms, then per router: router,
-- frame of the parts that go on, number of finishes, and per finish: request id, attempt, decode entry id, part.
-- A refused finish loses its own part only (rule 19). Answers per finish, in order: 'OK', 'ALREADY' or 'STALE'.
local w, ttl_ms = ARGV[1], ARGV[2]
local out = {}
local i = 3
while i <= #ARGV do
  local router, frame, n = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  i = i + 3
  for _ = 1, n do
    local id, attempt, dentry, part = unpack(ARGV, i, i + 3)
    i = i + 4
    local r = record(id)
    local ours = not is_stale(r, attempt) and r.holder == w and r.dentry == dentry
    if ours and r.state == 'DECODING' then
      frame = frame .. part
      end_record(id, r.owner, 'FINISHED', ttl_ms, '')
      out[#out + 1] = 'OK'
    elseif r.exists and r.state == 'FINISHED' and r.attempt == tonumber(attempt) and r.holder == w then
      out[#out + 1] = 'ALREADY'
    else
      out[#out + 1] = 'STALE'
    end
    -- HANDED and ours: its admission was forgotten, the entry still belongs to the living attempt
    if not (ours and r.state == 'HANDED') then drop_decode_entry(w, dentry) end
  end
  if #frame > 0 then publish(router, frame) end
end
return out
