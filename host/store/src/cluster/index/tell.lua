-- tell, version 1: tells the index how tasks are now. Idempotent.
--
-- KEYS[1] ready, KEYS[2] due, KEYS[3] held: as in take
-- ARGV    triples of what, key, score:
--           ready          the task waits; score orders it
--           due            the task waits for its time, the score
--           gone           the task waits for nobody
--           settled        the task that was handed out is running, or was not to be had
--           missing_ready  it waits, unless the index knows the task already
--           missing_due    it waits for its time, unless the index knows the task already
--
-- Answers how many tasks were missing.
local known = { ready = true, due = true, gone = true, settled = true, missing_ready = true, missing_due = true }
if #ARGV % 3 ~= 0 then
  return redis.error_reply('ERR tell wants triples')
end
for i = 1, #ARGV, 3 do
  if not known[ARGV[i]] or not tonumber(ARGV[i + 2]) then
    return redis.error_reply('ERR tell does not know ' .. ARGV[i] .. ' ' .. ARGV[i + 2])
  end
end
local missing = 0
for i = 1, #ARGV, 3 do
  local what, key, score = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  -- Where something is added that comes first: Redis refuses it when memory is full, before anything is changed.
  if what == 'ready' then
    redis.call('ZADD', KEYS[1], score, key)
    redis.call('ZREM', KEYS[2], key)
    redis.call('ZREM', KEYS[3], key)
  elseif what == 'due' then
    redis.call('ZADD', KEYS[2], score, key)
    redis.call('ZREM', KEYS[1], key)
    redis.call('ZREM', KEYS[3], key)
  elseif what == 'gone' then
    redis.call('ZREM', KEYS[1], key)
    redis.call('ZREM', KEYS[2], key)
    redis.call('ZREM', KEYS[3], key)
  elseif what == 'settled' then
    redis.call('ZREM', KEYS[3], key)
  elseif not redis.call('ZSCORE', KEYS[1], key) and not redis.call('ZSCORE', KEYS[2], key)
    and not redis.call('ZSCORE', KEYS[3], key) then
    redis.call('ZADD', what == 'missing_ready' and KEYS[1] or KEYS[2], score, key)
    missing = missing + 1
  end
end
return missing
