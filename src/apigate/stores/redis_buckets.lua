-- Token buckets on the server: the steps of apigate.throttling.algorithms, on doubles, which are exact below 2^53.
--
-- KEYS     the buckets of all commands, in their order; one that two commands name is one bucket
-- ARGV[1]  the time in microseconds; empty for the server's own
-- ARGV[2]  and all after it: one command each, as big-endian doubles: kind, patience, and for each of its keys
--          n, p, capacity, enforced, number, ahead. The kinds:
--            0 acquire  take `number` tokens from every bucket or from none; `patience` microseconds may be booked
--                       ahead. Where they are taken, take up to `ahead` more, at most half of what is left
--            1 peek     what acquire would answer
--            2 adjust   take `number` tokens (or give them back, below 0) without asking
--
-- Returns one line of numbers. For each acquire and peek: 1 or 0 for the verdict, then for each bucket what it was owed
-- before, in tokens times `p`, and how many tokens were taken ahead.
--
-- A bucket is kept as five big-endian doubles: owed, last, n, p, capacity; with the rate it was written under, so that it
-- is brought over to another one where it is used next. It expires when it is full, as an absent bucket is a full one.

local ACQUIRE, ADJUST = 0, 2
local SKEW_US = 1000000
local DAY_MS = 86400000
local MOST = 2 ^ 53
local NEVER = -MOST

-- What is written out below rather than called was measured: calls and tables are most of what the script costs.
local floor, max, min, numbers = math.floor, math.max, math.min, struct.unpack

local handed, now = ARGV[1] ~= '', nil
if handed then
  now = tonumber(ARGV[1])
else
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- Every bucket as { owed, last, n, p, capacity, changed }; what is not kept anywhere owes nothing, and so does what
-- nobody here can have written: a number that is none is not even equal to itself.
local buckets, kept, known = {}, redis.call('MGET', unpack(KEYS)), #ARGV > 2 and {}
for place = 1, #KEYS do
  local bucket = known and known[KEYS[place]]
  if not bucket then
    local state = kept[place]
    if state and #state == 40 then
      bucket = { numbers('>ddddd', state) }
      bucket[6] = false
    end
    if
      not bucket
      or not (bucket[1] >= 0 and bucket[1] < MOST and bucket[2] > NEVER and bucket[2] < MOST)
      or not (bucket[3] >= 1 and bucket[4] >= 1 and bucket[5] >= 1 and bucket[3] + bucket[4] + bucket[5] < MOST)
    then
      bucket = { 0, NEVER, 0, 0, 0, false }
    end
    if known then
      known[KEYS[place]] = bucket
    end
  end
  buckets[place] = bucket
end

-- ceil(tokens * to / from). The product may pass 2^53, so what is below one token is multiplied bit by bit.
local function scaled(tokens, from, to)
  local whole = floor(tokens / from)
  local rest = tokens - whole * from
  local quotient, remainder, bit = 0, 0, 2 ^ 46
  while bit >= 1 do
    quotient, remainder = quotient * 2, remainder * 2
    if floor(to / bit) % 2 == 1 then
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

local function settle(bucket, limit, owed)
  if now >= bucket[2] or bucket[2] > now + SKEW_US then
    bucket[2] = now
  end
  bucket[1], bucket[3], bucket[4], bucket[5], bucket[6] = owed, limit[1], limit[2], limit[3], true
end

local reply, place = {}, 0
for argument = 2, #ARGV do
  local text = ARGV[argument]
  local kind, patience, at = numbers('>dd', text)
  local first, limits, allowed, verdict = place, {}, true, #reply + 1
  if kind ~= ADJUST then
    reply[verdict] = 1
  end
  while at < #text do
    place = place + 1
    local limit, bucket = { numbers('>dddddd', text, at) }, buckets[place]
    limits[#limits + 1], at = limit, limit[7]

    -- What the bucket is owed now under this limit, and whether it was written under another rate.
    local owed, is_other = bucket[1], false
    if owed > 0 then
      if now > bucket[2] then
        owed = max(0, owed - (now - bucket[2]) * bucket[3])
      end
      if owed > 0 and (bucket[5] ~= limit[3] or bucket[4] ~= limit[2] or bucket[3] ~= limit[1]) then
        owed, is_other = min(limit[3], scaled(owed, bucket[4], limit[2])), true
      end
    end

    local cost = limit[5] * limit[2]
    if kind == ADJUST then
      local wanted = max(0, min(owed + cost, max(owed, 2 * limit[3])))
      if wanted ~= owed or is_other then
        settle(bucket, limit, wanted)
      end
    else
      if kind == ACQUIRE and (is_other or bucket[2] > now + SKEW_US) then
        settle(bucket, limit, owed)
      end
      reply[#reply + 1], reply[#reply + 2] = owed, 0
      if owed + cost > limit[3] and limit[4] == 1 then
        allowed = allowed and owed + cost <= limit[3] + patience * limit[1] and cost <= limit[3]
      end
    end
  end
  if not allowed then
    reply[verdict] = 0
  elseif kind == ACQUIRE then
    for number, limit in ipairs(limits) do
      local said = verdict + 2 * number - 1
      local wanted = reply[said] + limit[5] * limit[2]
      if limit[4] == 1 or wanted <= limit[3] then
        if limit[6] > 0 then
          reply[said + 1] = max(0, min(limit[6], floor((limit[3] - wanted) / limit[2] / 2)))
        end
        settle(buckets[first + number], limit, wanted + reply[said + 1] * limit[2])
      end
    end
  end
end

for number, bucket in ipairs(buckets) do
  if bucket[6] then
    bucket[6] = false
    if bucket[1] > 0 then
      local full_ms = max(1, math.ceil((bucket[2] - now + bucket[1] / bucket[3]) / 1000))
      if handed then
        full_ms = full_ms + DAY_MS
      end
      local state = struct.pack('>ddddd', bucket[1], bucket[2], bucket[3], bucket[4], bucket[5])
      redis.call('SET', KEYS[number], state, 'PX', full_ms)
    else
      redis.call('DEL', KEYS[number])
    end
  end
end

return string.format(string.rep('%.0f ', #reply), unpack(reply))
