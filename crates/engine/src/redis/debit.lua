#!lua
-- Takes units off sale, all or none, once: asked again it tells what it did.
--
-- KEYS  1 sale: hash    2 buyers: hash
-- ARGV  1 epoch   2 adjustment id   3 units
-- Answers 'taken', 'short|available', or N, E, W, C as credit.lua.

local sale = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'available', 'credited', 'granted')
if not sale[1] then return 'N' end
if sale[1] ~= ARGV[1] then return 'E' end
if sale[2] ~= 'open' and sale[2] ~= 'offers' then return 'W' end
local available, credited, granted = tonumber(sale[3]), tonumber(sale[4]), tonumber(sale[5])
local units = tonumber(ARGV[3])
if not (available and credited and granted and units) or available ~= credited - granted then return 'C' end
if redis.call('HGET', KEYS[2], 'e') ~= ARGV[1] then return 'C' end
local mark = 'm' .. ARGV[2]
if redis.call('HEXISTS', KEYS[2], mark) == 1 then return 'taken' end
if units > available then return 'short|' .. string.format('%.0f', available) end
redis.call('HSET', KEYS[2], mark, '-' .. ARGV[3])
redis.call('HSET', KEYS[1], 'available', string.format('%.0f', available - units), 'credited',
  string.format('%.0f', credited - units))
return 'taken'
