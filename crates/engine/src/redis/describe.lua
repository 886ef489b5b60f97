#!lua flags=allow-oom
-- Tells a sale what the ledger says about its product, if that is newer than what it knows.
--
-- KEYS  1 sale: hash
-- ARGV  1 epoch   2 version   then fields and values
-- Answers 1 done, 0 known already, or N, E as units.lua.

local sale = redis.call('HMGET', KEYS[1], 'epoch', 'version')
if not sale[1] then return 'N' end
if sale[1] ~= ARGV[1] then return 'E' end
-- A version that cannot be read is no newer one.
if (tonumber(sale[2]) or 0) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], unpack(ARGV, 3))
return 1
