-- duty, version 1: a duty that one node has at a time. A hint that saves work, never a lock: two nodes that both
-- think they have it only do it twice.
--
-- KEYS[1] the duty; its value is the node that has it
-- ARGV[1] the node
-- ARGV[2] how long, in ms
-- ARGV[3] 'take' to get or keep it, 'keep' only to keep it
--
-- Answers 1 if the node has it now, else 0.
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] or (not holder and ARGV[3] == 'take') then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 1
end
return 0
