-- Put before every script. KEYS[1] is the installation's prefix, "{brigade:NAME}:"; all other keys are made from it.
-- The rules that the numbers in comments name are in docs/protocol.md. Every script may be sent twice.
local P = KEYS[1]
local TERMINAL = { FINISHED = true, FAILED = true, CANCELLED = true }
local CONTROL_MAXLEN, TOKENS_MAXLEN, WAKE_MAXLEN = 1000, 200000, 16

local function req_key(id) return P .. 'req:' .. id end

local function now()
  local t = redis.call('TIME')
  return string.format('%d.%06d', t[1], t[2])
end

-- A missing record counts as terminal (rule 1): callers test `live`.
local function record(id)
  local v = redis.call('HMGET', req_key(id), 'state', 'attempt', 'holder', 'owner', 'prefiller', 'stream', 'entry', 'dentry')
  local r = { state = v[1], attempt = tonumber(v[2] or '0'), holder = v[3] or '', owner = v[4] or '', prefiller = v[5] or '',
    stream = v[6] or '', entry = v[7] or '', dentry = v[8] or '' }
  r.exists = v[1] ~= false
  r.live = r.exists and not TERMINAL[r.state]
  return r
end

-- Stale: missing, terminal, or at another attempt (rule 14).
local function is_stale(r, attempt) return not r.live or r.attempt ~= tonumber(attempt) end

local function worker_alive(id) return redis.call('EXISTS', P .. 'worker:' .. id) == 1 end
local function router_alive(id) return redis.call('EXISTS', P .. 'router:' .. id) == 1 end

-- XACK alone leaves the entry in the stream: always both.
local function drop_prefill_entry(stream, entry)
  redis.call('XACK', P .. stream, 'prefill', entry)
  redis.call('XDEL', P .. stream, entry)
end

local function drop_decode_entry(worker, entry)
  if worker == '' or entry == '' then return end
  redis.call('XACK', P .. 'decode:' .. worker, 'decode', entry)
  redis.call('XDEL', P .. 'decode:' .. worker, entry)
end

local function hint(worker, kind, id, attempt)
  if worker ~= '' then
    redis.call('XADD', P .. 'control:' .. worker, 'NOMKSTREAM', 'MAXLEN', '~', CONTROL_MAXLEN, '*', 'k', kind, 'r', id, 'a', attempt)
  end
end

local function wake() redis.call('XADD', P .. 'wake', 'MAXLEN', '~', WAKE_MAXLEN, '*', 'k', '1') end

-- Never make a dead router's stream again (rule 13).
local function publish(router, frame)
  redis.call('XADD', P .. 'tokens:' .. router, 'NOMKSTREAM', 'MAXLEN', '~', TOKENS_MAXLEN, '*', 'p', frame)
end

local function end_record(id, owner, state, ttl_ms, reason)
  redis.call('HSET', req_key(id), 'state', state, 'reason', reason or '', 't_ended', now())
  redis.call('PEXPIRE', req_key(id), ttl_ms)
  redis.call('SREM', P .. 'owned:' .. owner, id)
end

-- Whatever the present attempt left on streams is stale from here on.
local function drop_entries(r)
  if r.entry ~= '' then drop_prefill_entry(r.stream, r.entry) end
  if r.dentry ~= '' and (r.state == 'HANDED' or r.state == 'DECODING') then drop_decode_entry(r.holder, r.dentry) end
end

local function enqueue(id, attempt, stream, job)
  local entry = redis.call('XADD', P .. stream, '*', 'r', id, 'a', attempt, 'j', job)
  redis.call('HSET', req_key(id), 'stream', stream, 'entry', entry, 't_queued', now())
  wake()
end

-- A decode job goes out with what its reader must know of the request, so that it need not ask. Answers the entry id, or false
-- when the worker's stream is not there.
local function deliver(target, id, attempt, job)
  local v = redis.call('HMGET', req_key(id), 'spec', 'owner')
  return redis.call('XADD', P .. 'decode:' .. target, 'NOMKSTREAM', '*', 'r', id, 'a', attempt, 'j', job, 's', v[1] or '',
    'o', v[2] or '')
end
