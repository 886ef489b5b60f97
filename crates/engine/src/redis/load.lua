#!lua flags=allow-oom
-- Fills Redis with an epoch of a sale, in steps: 'close' stops selling, 'begin' forgets what was there, 'add' takes
-- buyers in, 'open' lets what was accepted before be offered, if all buyers are in, and 'sell' starts selling. Each
-- step is refused unless it is this loader's turn.
--
-- KEYS  1 sale: hash    2 buyers: hash    3 grants: stream
-- ARGV  1 epoch   2 loader   3 step   then
--   sell: nothing     close: nothing, or 'rescue' if the ledger is to be told of the sale's orders before it is filled
--   begin: group, then 'rescued' if the ledger was told of them      add: fields and values of buyers
--   open: how many fields buyers has, then fields and values of the sale
-- Answers 1, or a text: E epoch: that or a later epoch is on sale already, L: another loader began after this one,
-- R: the ledger is to be told of the sale's orders first, M count: buyers has another number of fields.

-- What is of another type is somebody else's, and nothing of the sale.
for i, kind in ipairs({'hash', 'hash', 'stream'}) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= kind then redis.call('DEL', KEYS[i]) end
end
local sale = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'loader', 'rescue')
if ARGV[3] == 'close' then
  if sale[1] == ARGV[1] and (sale[2] == 'open' or sale[2] == 'offers') then
    redis.call('HSET', KEYS[1], 'state', 'closed')
  end
  if sale[1] == ARGV[1] and ARGV[4] == 'rescue' then redis.call('HSET', KEYS[1], 'rescue', '1') end
  return 1
end
if ARGV[3] == 'sell' then
  if sale[1] ~= ARGV[1] then return 'E|' .. (sale[1] or '') end
  if sale[2] == 'offers' then redis.call('HSET', KEYS[1], 'state', 'open') end
  return 1
end
if ARGV[3] == 'begin' then
  -- Whoever edits it by hand may write what no epoch can be.
  local epoch = tonumber(sale[1])
  if epoch and epoch <= 2 ^ 30
      and (epoch > tonumber(ARGV[1]) or (sale[1] == ARGV[1] and sale[2] ~= 'loading')) then
    return 'E|' .. sale[1]
  end
  if sale[4] and ARGV[5] ~= 'rescued' then return 'R' end
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'state', 'loading', 'loader', ARGV[2])
  -- Tells that buyers is there, and whose it is.
  redis.call('HSET', KEYS[2], 'e', ARGV[1])
  redis.call('XGROUP', 'CREATE', KEYS[3], ARGV[4], '0', 'MKSTREAM')
  return 1
end
if sale[1] ~= ARGV[1] or sale[2] ~= 'loading' then return 'E|' .. (sale[1] or '') end
if sale[3] ~= ARGV[2] then return 'L' end
if ARGV[3] == 'add' then
  redis.call('HSET', KEYS[2], unpack(ARGV, 4))
  return 1
end
local count = redis.call('HLEN', KEYS[2])
if count ~= tonumber(ARGV[4]) + 1 then return 'M|' .. count end
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
return 1
