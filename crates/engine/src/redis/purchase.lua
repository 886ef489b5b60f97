#!lua
-- Decides purchases of one product: all of a call in one atomic step, and nothing in between can be seen or lost.
-- It says what the core says (`core/src/inventory/decide.rs`), in the same order; the decision tables hold both to it.
--
-- KEYS  1 sale: hash    2 buyers: hash    3 grants: stream
-- ARGV  1 epoch   2 the server that the caller talks to   3 deadline, microseconds, or ''   4 'buy' or 'offer'
--       5 time, microseconds, or '' for this server's
--       6 the rate limit of a customer: microseconds after which he may be granted one more, or ''
--       7 how many he may be granted at once   8 how many grants may wait for the ledger    then for each purchase: order id, customer, quantity
--       and for each offer also: its number, when it was accepted, microseconds, and its price, 'amount|currency'
--
-- Answers one text per purchase, its parts separated by '|':
--   G number time amount currency             granted
--   P number quantity time amount currency    granted before to the same order id (a replay)
--   O number quantity time amount currency    the same, and the ledger has it: from before this epoch, or ended
--   K                                         granted before, but for another quantity
--   Q max        more than one order may have
--   Y time       not started            Z time   ended            U   paused
--   L limit used ids                    at the limit; ids of 32 hex digits each
--   R wait       too often, for so many milliseconds
--   S available  sold out
--   B            too many grants wait for the ledger
--   C            broken: the units do not add up, or what is needed to decide cannot be read
-- or for all of them alike: N no such sale here, E epoch: another epoch, I another server, W being loaded,
--   T past the deadline.
--
-- Anybody may have written anything into these keys. It never raises, whatever they hold, and what cannot be read changes
-- nothing: N and C have the sale filled anew.
--
-- An offer was accepted once, by a Redis that was lost: only stock can stand against it, and it keeps its time and price.
-- Where there is no stock it is remembered as an order that has ended: the same order id is never granted again.
--
-- The rate limit is a generic cell rate algorithm (ITU-T I.371): each grant moves the time at which its customer would have
-- used up what he was granted, his theoretical arrival time (TAT), by one interval, and none moves it further ahead than
-- the intervals of those that may come at once. Only grants count, and only they write, what they write anyway:
-- a customer's field is 'units|ids' or 'units|ids|TAT'.

local is_offer = ARGV[4] == 'offer'
local stride = is_offer and 6 or 3
local asked = (#ARGV - 8) / stride
-- The place before the first argument of a purchase.
local function place(i)
  return 8 + stride * (i - 1)
end
local function all(answer)
  local answers = {}
  for i = 1, asked do answers[i] = answer end
  return answers
end

if is_offer then
  for i = 1, asked do
    local n, at, price = ARGV[place(i) + 4], ARGV[place(i) + 5], ARGV[place(i) + 6]
    if not (string.find(n, '^%d+$') and string.find(at, '^%d+$') and string.find(price, '^%d+|%a%a%a$')) then
      return redis.error_reply('ERR an offer has no number, no time or no price')
    end
  end
end

-- A whole number from 0 to `most`, or nil.
local function whole(text, most)
  local number = tonumber(text)
  return number and number >= 0 and number <= most and number % 1 == 0 and number or nil
end
-- A time, false where there is none, or nil. In microseconds all years of four digits have at most 18 characters.
local function time_or_none(text)
  if text == '' then return false end
  return text and #text <= 18 and string.find(text, '^%-?%d+$') and tonumber(text) or nil
end

-- A key of another type is somebody else's; it has no fields.
local sale = redis.pcall('HMGET', KEYS[1], 'epoch', 'server', 'state', 'available', 'credited', 'granted', 'number',
  'done', 'limit', 'max', 'starts_at', 'ends_at', 'paused', 'price')
if not sale[1] then return all('N') end
if sale[1] ~= ARGV[1] then
  local epoch = whole(sale[1], 2 ^ 30)
  return all(epoch and string.format('E|%d', epoch) or 'N')
end
if sale[2] ~= ARGV[2] then return all('I') end
if sale[3] ~= 'open' and not (sale[3] == 'offers' and is_offer) then return all('W') end
local now = tonumber(ARGV[5])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local deadline = tonumber(ARGV[3])
if deadline and now > deadline then return all('T') end
-- A stream that is gone, or something else by now, took grants with it.
local length = redis.pcall('XLEN', KEYS[3])
if type(length) ~= 'number' or (length == 0 and redis.call('EXISTS', KEYS[3]) == 0) then return all('N') end

local units_max, number_max = 1e12, 2 ^ 32 - 1
local available, credited, granted = whole(sale[4], units_max), whole(sale[5], units_max), whole(sale[6], units_max)
local number, done, backlog = whole(sale[7], units_max), whole(sale[8], units_max), tonumber(ARGV[8])
local is_counted = available and credited and granted and number and done
local adds_up = is_counted and available == credited - granted
local limit, max = sale[9] ~= '' and whole(sale[9], number_max), whole(sale[10], number_max)
local starts_at, ends_at = time_or_none(sale[11]), time_or_none(sale[12])
local paused, price = sale[13] == '1', sale[14]
local is_described = max and limit ~= nil and starts_at ~= nil and ends_at ~= nil and (paused or sale[13] == '0')
  and price and #price <= 20 and string.find(price, '^%d+|%u%u%u$')

local interval = not is_offer and tonumber(ARGV[6])
local ahead_max = interval and interval * tonumber(ARGV[7])

local fields = {}
for i = 1, asked do
  fields[2 * i - 1] = 'o' .. ARGV[place(i) + 1]
  fields[2 * i] = 'c' .. ARGV[place(i) + 2]
end
fields[#fields + 1] = 'e'
local found = redis.pcall('HMGET', KEYS[2], unpack(fields))
-- Without what its buyers have, nobody could be told from a new one.
if found[#fields] ~= ARGV[1] then return all('N') end
-- What this call itself has changed so far.
local changed = {}
local function look_up(index)
  return changed[fields[index]] or found[index]
end

local time_of_call = string.format('%.0f', now)
local answers, writes, lines = {}, {}, {}
local function decide(i)
  local at = place(i)
  local id, customer, quantity = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local time, cost = time_of_call, price
  if is_offer then time, cost = ARGV[at + 5], ARGV[at + 6] end
  local before = look_up(2 * i - 1)
  if before then
    local kind, n, q, t, p, whose = string.match(before, '^([GLX])|(%d+)|(%d+)|(%d+)|(%d+|%u%u%u)|(.*)$')
    if whose ~= customer or #n > 18 or #t > 18 or #p > 22 then return 'C' end
    -- An order that has ended is not accepted anew, whoever offers it.
    if is_offer and kind == 'X' then return 'S|0' end
    if tonumber(q) ~= quantity then return 'K' end
    return (kind == 'G' and 'P|' or 'O|') .. n .. '|' .. q .. '|' .. t .. '|' .. p
  end
  if not is_counted then return 'C' end
  if not is_offer then
    if not is_described then return 'C' end
    if quantity > max then return 'Q|' .. max end
    if not adds_up then return 'C' end
    if starts_at and now < starts_at then return 'Y|' .. sale[11] end
    if ends_at and now >= ends_at then return 'Z|' .. sale[12] end
    if paused then return 'U' end
  end
  local used, ids, arrival = 0, '', ''
  local has = look_up(2 * i)
  if has then
    used, ids, arrival = string.match(has, '^(%d+)|(%x*)|?(%d*)$')
    used = whole(used, number_max)
    if not used or #ids % 32 ~= 0 then return 'C' end
  end
  if limit and not is_offer and used + quantity > limit then return 'L|' .. limit .. '|' .. used .. '|' .. ids end
  local next_arrival
  if interval then
    local from = tonumber(arrival)
    -- Further ahead than any grant puts it: the clock was set, the limit was another, or somebody edited it.
    if not from or from < now or from > now + 2 * ahead_max then from = now end
    next_arrival = from + interval
    local wait = next_arrival - now - ahead_max
    if wait > 0 then return string.format('R|%.0f', math.ceil(wait / 1000)) end
  end
  if quantity > available then
    if is_offer then
      local ended = string.format('X|%s|%d|', ARGV[at + 4], quantity) .. time .. '|' .. cost .. '|' .. customer
      changed[fields[2 * i - 1]] = ended
      writes[#writes + 1], writes[#writes + 2] = fields[2 * i - 1], ended
    end
    return 'S|' .. string.format('%.0f', available)
  end
  if number - done >= backlog and not is_offer then return 'B' end
  available, granted, number = available - quantity, granted + quantity, number + 1
  local rest = string.format('%.0f|%d|', number, quantity) .. time .. '|' .. cost
  local order = 'G|' .. rest .. '|' .. customer
  local purchases = string.format('%d|', used + quantity) .. id .. string.sub(ids, 1, 19 * 32)
  if next_arrival then
    purchases = purchases .. string.format('|%.0f', next_arrival)
  elseif arrival ~= '' then
    purchases = purchases .. '|' .. arrival
  end
  changed[fields[2 * i - 1]], changed[fields[2 * i]] = order, purchases
  local w = #writes
  writes[w + 1], writes[w + 2], writes[w + 3], writes[w + 4] = fields[2 * i - 1], order, fields[2 * i], purchases
  lines[#lines + 1] = id .. '|' .. rest .. '|' .. customer
  return string.format('G|%.0f|', number) .. time .. '|' .. cost
end
for i = 1, asked do answers[i] = decide(i) end

-- The first write, and the only one that can fail: where somebody has used up the ids of the stream. Below it nothing can.
if #lines > 0 then
  local added = redis.pcall('XADD', KEYS[3], '*', 'v1', table.concat(lines, '\n'))
  if type(added) == 'table' and added.err then return all('C') end
  redis.call('HSET', KEYS[1], 'available', string.format('%.0f', available), 'granted',
    string.format('%.0f', granted), 'number', string.format('%.0f', number))
end
if #writes > 0 then redis.call('HSET', KEYS[2], unpack(writes)) end
return answers
