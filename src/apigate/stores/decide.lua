-- Token buckets on the server: the steps of apigate.throttling.algorithms, on doubles, which are exact below 2^53.
--
-- KEYS     the buckets of all commands, in their order; one that two commands name is one bucket
-- ARGV[1]  the time in microseconds; empty for the server's own
-- ARGV[2]  and all after it: one command each, as JSON: [kind, patience, [n, p, capacity, enforced, number, ahead], ...]
--          with one list for each of its keys
--            acquire  take `number` tokens from every bucket or from none; `patience` microseconds may be booked ahead.
--                     Where they are taken, take up to `ahead` more, at most half of what is left
--            peek     what acquire would answer
--            adjust   take `number` tokens (or give them back, below 0) without asking
--
-- Returns one line of numbers. For each acquire and peek: 1 or 0 for the verdict, then for each bucket what it was owed
-- before, in tokens times `p`, and how many tokens were taken ahead.
--
-- A bucket is kept as 'owed last n p capacity': with the rate it was written under, so that it is brought over to
-- another one exactly where it is used next. It expires when it is full, as an absent bucket is a full one.

local SKEW_US = 1000000
local DAY_MS = 86400000

local handed = ARGV[1] ~= ''
local now
if handed then
  now = tonumber(ARGV[1])
else
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- ceil(owed * to / from). The product may pass 2^53, so the part below one token is multiplied bit by bit.
local function scaled(owed, from, to)
  local whole = math.floor(owed / from)
  local rest = owed - whole * from
  local quotient, remainder, bit = 0, 0, 2 ^ 46
  while bit >= 1 do
    quotient, remainder = quotient * 2, remainder * 2
    if math.floor(to / bit) % 2 == 1 then
      remainder = remainder + rest
    end
    while remainder >= from do
      quotient, remainder = quotient + 1, remainder - from
    end
    bit = bit / 2
  end
  if remainder > 0 then
    quotient = quotient + 1
  end
  return whole * to + quotient
end

local buckets = {}
for place, kept in ipairs(redis.call('MGET', unpack(KEYS))) do
  local owed, last, n, p, capacity
  if kept then
    owed, last, n, p, capacity = string.match(kept, '^(%d+) (-?%d+) (%d+) (%d+) (%d+)$')
  end
  local bucket = { owed = 0, last = -2 ^ 53, changed = false }
  if owed then
    bucket.owed, bucket.last, bucket.kept = tonumber(owed), tonumber(last), true
    bucket.n, bucket.p, bucket.capacity = tonumber(n), tonumber(p), tonumber(capacity)
  end
  buckets[KEYS[place]] = buckets[KEYS[place]] or bucket
end

-- What a bucket is owed now under a limit, and whether its rate was another one.
local function owed_now(bucket, limit)
  local owed = bucket.owed
  if owed > 0 and now > bucket.last then
    owed = math.max(0, owed - (now - bucket.last) * bucket.n)
  end
  if owed > 0 and (bucket.n ~= limit[1] or bucket.p ~= limit[2] or bucket.capacity ~= limit[3]) then
    return math.min(limit[3], scaled(owed, bucket.p, limit[2])), true
  end
  return owed, false
end

local function settle(bucket, limit, owed)
  if not (now < bucket.last and bucket.last <= now + SKEW_US) then
    bucket.last = now
  end
  bucket.owed, bucket.n, bucket.p, bucket.capacity = owed, limit[1], limit[2], limit[3]
  bucket.changed = true
end

local reply = {}
local function say(number)
  reply[#reply + 1] = string.format('%.0f', number)
end

local function ask(command, first)
  local patience, allowed, owed, other = command[2], true, {}, {}
  for place = 3, #command do
    local limit, bucket = command[place], buckets[KEYS[first + place - 3]]
    owed[place], other[place] = owed_now(bucket, limit)
    local cost = limit[5] * limit[2]
    local wanted = owed[place] + cost
    if wanted > limit[3] and limit[4] == 1 and (wanted > limit[3] + patience * limit[1] or cost > limit[3]) then
      allowed = false
    end
  end
  say(allowed and 1 or 0)
  for place = 3, #command do
    local limit, bucket = command[place], buckets[KEYS[first + place - 3]]
    local wanted, ahead = owed[place] + limit[5] * limit[2], 0
    if command[1] ~= 'peek' then
      if allowed and (wanted <= limit[3] or limit[4] == 1) then
        ahead = math.max(0, math.min(limit[6], math.floor((limit[3] - wanted) / limit[2] / 2)))
        settle(bucket, limit, wanted + ahead * limit[2])
      elseif other[place] or bucket.last > now + SKEW_US then
        settle(bucket, limit, owed[place])
      end
    end
    say(owed[place])
    say(ahead)
  end
end

local function adjust(command, first)
  for place = 3, #command do
    local limit, bucket = command[place], buckets[KEYS[first + place - 3]]
    local owed, other = owed_now(bucket, limit)
    local wanted = math.max(0, math.min(owed + limit[5] * limit[2], math.max(owed, 2 * limit[3])))
    if wanted ~= owed or other then
      settle(bucket, limit, wanted)
    end
  end
end

local known, first = {}, 1
for place = 2, #ARGV do
  local command = known[ARGV[place]] or cjson.decode(ARGV[place])
  known[ARGV[place]] = command
  if command[1] == 'adjust' then
    adjust(command, first)
  else
    ask(command, first)
  end
  first = first + #command - 2
end

for key, bucket in pairs(buckets) do
  if bucket.changed and bucket.owed > 0 then
    local full_ms = math.max(1, math.ceil((bucket.last - now + bucket.owed / bucket.n) / 1000))
    if handed then
      full_ms = full_ms + DAY_MS
    end
    local kept = string.format(
      '%.0f %.0f %.0f %.0f %.0f', bucket.owed, bucket.last, bucket.n, bucket.p, bucket.capacity
    )
    redis.call('SET', key, kept, 'PX', string.format('%.0f', full_ms))
  elseif bucket.changed and bucket.kept then
    redis.call('DEL', key)
  end
end

return table.concat(reply, ' ')
