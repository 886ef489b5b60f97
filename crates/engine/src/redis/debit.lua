-- Takes units off sale, all or none, once: asked again it tells what it did.
--
-- KEYS  1 sale: hash    2 buyers: hash
-- ARGV  1 epoch   2 adjustment id   3 units
-- Answers 'taken', 'short|available', or N, E, W, C as units.lua, which stands before this; C also if the figures do
-- not add up.

if available ~= credited - granted then return 'C' end
local mark = 'm' .. ARGV[2]
if redis.call('HEXISTS', KEYS[2], mark) == 1 then return 'taken' end
if units > available then return 'short|' .. string.format('%.0f', available) end
redis.call('HSET', KEYS[2], mark, '-' .. ARGV[3])
redis.call('HSET', KEYS[1], 'available', string.format('%.0f', available - units), 'credited',
  string.format('%.0f', credited - units))
return 'taken'
