-- take, version 1: hands out the first waiting tasks of a pool, or names retries whose time has come.
--
-- KEYS[1] epoch   there exactly while the index is whole
-- KEYS[2] ready   waiting tasks, by priority, then time, then key
-- KEYS[3] due     retries, by their time
-- KEYS[4] held    tasks handed out and not settled, by the end of their hold in Redis' time
-- ARGV[1] how many tasks at most
-- ARGV[2] the store's time in ms: due times are the store's
-- ARGV[3] how many retries at most; 0 to look at none
-- ARGV[4] how long to hold what is handed out, in ms
--
-- Answers {'unknown'} while the index is not whole; {'due', keys...}, changing nothing; or {'ready', keys...}.
-- A lost answer costs the hold: what was handed out comes back when it ends.
local limit, now, due_limit, hold = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if not limit or not tonumber(now) or not due_limit or not hold then
  return redis.error_reply('ERR take wants four numbers')
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  return { 'unknown' }
end
if due_limit > 0 then
  local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, due_limit)
  if #due > 0 then
    return { 'due', unpack(due) }
  end
end
local reply = { 'ready' }
if limit < 1 then
  return reply
end
local time = redis.call('TIME')
local deadline = time[1] * 1000 + math.floor(time[2] / 1000) + hold
-- ZPOPMIN comes first: Redis lets a script that has written go on when memory is full.
local popped = redis.call('ZPOPMIN', KEYS[2], limit)
local held = {}
for i = 1, #popped, 2 do
  reply[#reply + 1] = popped[i]
  held[#held + 1] = deadline
  held[#held + 1] = popped[i]
end
if #held > 0 then
  redis.call('ZADD', KEYS[4], unpack(held))
end
return reply
