-- The log of invalidations of one stage, and one value beside it; apigate.caching.store says what the log is for.
-- The log is one hash, so that a server which is short of memory drops all of it or nothing: its id, the position of its
-- last record, and the last records by their positions. A log that is not there begins anew, with another id.
-- KEYS: the log, and the key of a value if one is wanted. ARGV: the mark up to where the caller knows the log (16 bytes
-- of id, 8 of position, or nothing), an id for a new log, records to append (each two bytes of length, then itself), how
-- many are kept, milliseconds that the log is kept unused.
-- Answers the id, a line of numbers (last position, position before the first record, how many records, 1 if there is a
-- value), the records as above, and the value.
local log, known, records = KEYS[1], ARGV[1], ARGV[3]
local most, kept = tonumber(ARGV[4]), tonumber(ARGV[5])
local CHUNK, ID = 1000, 16

local function at(position)
  return string.format('%.0f', position)
end

local head = redis.pcall('HMGET', log, 'id', 'last')
local id, last = head[1], tonumber(head[2] or '')
local since = -1
if #known == ID + 8 then
  local high, low = struct.unpack('>I4I4', known, ID + 1)
  since = high * 4294967296 + low
end
local is_whole = last and last >= 0 and last < 9007199254740992 and last == math.floor(last)
if head.err or not id or #id ~= ID or not is_whole or (known:sub(1, ID) == id and since > last) then
  -- it was lost, or some of its last records were, as when a replica takes over; or somebody else has written to it
  redis.call('DEL', log)
  id, last = ARGV[2], 0
  redis.call('HSET', log, 'id', id, 'last', '0')
end

local from = 1
while from < #records do
  local record
  record, from = struct.unpack('>Hc0', records, from)
  last = last + 1
  redis.call('HSET', log, at(last), record)
  redis.call('HDEL', log, at(last - most))
end
if #records > 0 then
  redis.call('HSET', log, 'last', at(last))
end
if redis.call('PTTL', log) < kept / 2 then
  redis.call('PEXPIRE', log, kept)
end

local oldest = math.max(0, last - most)
if known:sub(1, ID) ~= id or since < oldest then
  since = oldest
end
local parts = {}
for first = since + 1, last, CHUNK do
  local places = {}
  for position = first, math.min(last, first + CHUNK - 1) do
    places[#places + 1] = at(position)
  end
  for index, record in ipairs(redis.call('HMGET', log, unpack(places))) do
    if record then
      parts[#parts + 1] = struct.pack('>H', #record) .. record
    else  -- somebody else has deleted it: nothing before it counts as known
      parts, since = {}, first + index - 1
    end
  end
end

local value = false
if KEYS[2] then
  value = redis.pcall('GET', KEYS[2])
  if type(value) == 'table' then
    redis.call('DEL', KEYS[2])
    value = false
  end
end
local numbers = string.format('%.0f %.0f %d %d\n', last, since, #parts, value and 1 or 0)
return id .. numbers .. table.concat(parts) .. (value or '')
