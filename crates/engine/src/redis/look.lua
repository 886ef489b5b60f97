#!lua flags=no-writes,allow-oom
-- A look at a sale, all of it at one instant. (Not as a transaction: Redis refuses those when its memory is full.)
--
-- KEYS  1 sale: hash    2 buyers: hash    3 grants: stream
-- ARGV  1 field of buyers   2 first entry   3 how many entries   then fields of sale
-- Answers the fields of sale, the entries, the field of buyers.

return {
  redis.call('HMGET', KEYS[1], unpack(ARGV, 4)),
  redis.call('XRANGE', KEYS[3], ARGV[2], '+', 'COUNT', ARGV[3]),
  redis.call('HGET', KEYS[2], ARGV[1]),
}
