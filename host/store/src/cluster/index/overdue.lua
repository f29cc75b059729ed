-- overdue, version 1: names tasks that were handed out and not settled in time, and holds them anew so that one node
-- looks at them at a time. Where they belong only the store knows.
--
-- KEYS[1] held: as in take
-- ARGV[1] how many at most
-- ARGV[2] how long to hold them anew, in ms
local limit, hold = tonumber(ARGV[1]), tonumber(ARGV[2])
if not limit or not hold then
  return redis.error_reply('ERR overdue wants two numbers')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local keys = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, limit)
for _, key in ipairs(keys) do
  redis.call('ZADD', KEYS[1], 'XX', now + hold, key)
end
return keys
