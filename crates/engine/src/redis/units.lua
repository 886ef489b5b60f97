-- The head of credit.lua and debit.lua, which change the units of a sale: is it here, and what are its figures?
--
-- KEYS  1 sale: hash    2 buyers: hash
-- ARGV  1 epoch   3 units
-- Answers N no such sale here, E another epoch, W being loaded, C the buyers are gone or the figures are broken.

local sale = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'available', 'credited', 'granted')
if not sale[1] then return 'N' end
if sale[1] ~= ARGV[1] then return 'E' end
if sale[2] ~= 'open' and sale[2] ~= 'offers' then return 'W' end
local available, credited, granted = tonumber(sale[3]), tonumber(sale[4]), tonumber(sale[5])
local units = tonumber(ARGV[3])
if not (available and credited and granted and units) then return 'C' end
if redis.call('HGET', KEYS[2], 'e') ~= ARGV[1] then return 'C' end

