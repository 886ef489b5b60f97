#!lua flags=allow-oom
-- The ledger has what these entries hold: they leave the stream, and their grants leave the backlog.
--
-- KEYS  1 sale: hash    2 grants: stream
-- ARGV  1 epoch   2 group   then for each entry: its id, its grants, and units of them that the ledger has charged
-- Answers how many entries this call settled. An entry whose group was destroyed meanwhile cannot be acknowledged, and
-- one that somebody trimmed away cannot be deleted: each counts all the same, and none counts twice.

local settled, grants, units = 0, 0, 0
for i = 3, #ARGV, 3 do
  local acknowledged = redis.call('XACK', KEYS[2], ARGV[2], ARGV[i])
  if redis.call('XDEL', KEYS[2], ARGV[i]) + acknowledged > 0 then
    settled = settled + 1
    grants = grants + tonumber(ARGV[i + 1])
    units = units + tonumber(ARGV[i + 2])
  end
end
-- The entries are gone by now, so nothing may fail here; that a figure is none is for a look to see.
if grants > 0 and redis.pcall('HGET', KEYS[1], 'epoch') == ARGV[1] then
  redis.pcall('HINCRBY', KEYS[1], 'done', grants)
  redis.pcall('HINCRBY', KEYS[1], 'delivered', units)
end
return settled
