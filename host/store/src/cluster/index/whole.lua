-- whole, version 1: says that the index is whole, if the node that rebuilt it was not interrupted. Idempotent.
--
-- KEYS[1] epoch: as in take
-- KEYS[2] the duty to rebuild: as in duty. Gone if everything was lost meanwhile: then nothing is whole.
-- ARGV[1] the node
-- ARGV[2] the epoch: which run of the Redis server the index was told to
--
-- Answers 1 if the index is whole now, else 0.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
return 1
