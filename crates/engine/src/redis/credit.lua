-- Gives units to a sale, once: the mark that it was done and the units are one atomic step.
--
-- KEYS  1 sale: hash    2 buyers: hash
-- ARGV  1 epoch   2 credit id (of an order: the order's id)   3 units   4 'returned', 'restocked' or 'void'   5 customer
-- Answers 1 done, 2 done before, or a text: N, E, W, C as units.lua, which stands before this; C also if the order is
-- not known here.

if ARGV[4] == 'returned' then
  local field = 'o' .. ARGV[2]
  local order = redis.call('HGET', KEYS[2], field)
  if not order then return 'C' end
  if string.sub(order, 1, 1) == 'X' then return 2 end
  redis.call('HSET', KEYS[2], field, 'X' .. string.sub(order, 2))
  local buyer = 'c' .. ARGV[5]
  local used, ids, arrival = string.match(redis.call('HGET', KEYS[2], buyer) or '', '^(%d+)|(%x*)(|?%d*)$')
  if used then
    local kept = {}
    for i = 1, #ids, 32 do
      local id = string.sub(ids, i, i + 31)
      if id ~= ARGV[2] then kept[#kept + 1] = id end
    end
    redis.call('HSET', KEYS[2], buyer,
      string.format('%d|', math.max(used - units, 0)) .. table.concat(kept) .. arrival)
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
  -- Unlike what is credited, it never falls.
  redis.call('HINCRBY', KEYS[1], 'given', ARGV[3])
end
return 1
