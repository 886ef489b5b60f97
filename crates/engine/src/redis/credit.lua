#!lua flags=allow-oom
-- Gives units to a sale, once: the mark that it was done and the units are one atomic step.
--
-- KEYS  1 sale: hash    2 buyers: hash
-- ARGV  1 epoch   2 credit id (of an order: the order's id)   3 units   4 'returned', 'restocked' or 'void'   5 customer
-- Answers 1 done, 2 done before, or a text: N no such sale here, E another epoch, W being loaded, C the order is not
-- known here, the buyers are gone or the figures are broken.

local sale = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'available', 'credited', 'granted')
if not sale[1] then return 'N' end
if sale[1] ~= ARGV[1] then return 'E' end
if sale[2] ~= 'open' and sale[2] ~= 'offers' then return 'W' end
local available, credited, granted = tonumber(sale[3]), tonumber(sale[4]), tonumber(sale[5])
local units = tonumber(ARGV[3])
if not (available and credited and granted and units) then return 'C' end
if redis.call('HGET', KEYS[2], 'e') ~= ARGV[1] then return 'C' end
if ARGV[4] == 'returned' then
  local field = 'o' .. ARGV[2]
  local order = redis.call('HGET', KEYS[2], field)
  if not order then return 'C' end
  if string.sub(order, 1, 1) == 'X' then return 2 end
  redis.call('HSET', KEYS[2], field, 'X' .. string.sub(order, 2))
  local buyer = 'c' .. ARGV[5]
  local used, ids = string.match(redis.call('HGET', KEYS[2], buyer) or '', '^(%d+)|(%x*)$')
  if used then
    local kept = {}
    for i = 1, #ids, 32 do
      local id = string.sub(ids, i, i + 31)
      if id ~= ARGV[2] then kept[#kept + 1] = id end
    end
    redis.call('HSET', KEYS[2], buyer, string.format('%d|', math.max(used - units, 0)) .. table.concat(kept))
  end
else
  if redis.call('HSETNX', KEYS[2], 'm' .. ARGV[2], ARGV[3]) == 0 then return 2 end
end
if ARGV[4] == 'void' then
  redis.call('HSET', KEYS[1], 'available', string.format('%.0f', available + units), 'granted',
    string.format('%.0f', granted - units))
else
  redis.call('HSET', KEYS[1], 'available', string.format('%.0f', available + units), 'credited',
    string.format('%.0f', credited + units))
end
return 1
