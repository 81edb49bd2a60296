-- One window of one key, as apigate.throttling.tallies says; its whole numbers are exact in doubles.
-- A fixed or sliding window is a string "start previous count"; a moving one a list of "moment cost", oldest first,
-- and its sum as the last element. What is neither, as somebody else wrote it, counts nothing.
-- KEYS: the key. ARGV[1]: the time in us to go by, empty for the server's. ARGV[2], with spaces between: kind, what to
-- do (take, look, change), count, period in us, cost or units, time counted under (-1 for none).
-- Answers one line of numbers: 1 if allowed, used, wait (-1 for never), until it admits more, time counted under.
local key, injected, now = KEYS[1], ARGV[1] ~= '', tonumber(ARGV[1])
local kind, action, count, period, cost, at = string.match(ARGV[2], '^(%a+) (%a+) (%d+) (%d+) (-?%d+) (-?%d+)$')
count, period, cost, at = tonumber(count), tonumber(period), tonumber(cost), tonumber(at)
local MS, SKEW = 1000, 1000000
local CHUNK, MOST = 100, 1000  -- entries of a log that are read at once, and that one call drops: it keeps all waiting
local DIGITS = 16  -- of the largest whole number that is exact
if not injected then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function text(number)
  return string.format('%.0f', number)
end

local function whole(digits)
  return digits and #digits <= DIGITS and tonumber(digits) or nil
end

-- What a command reads; nothing where something else than ours is kept under the key.
local function read(command, ...)
  local kept = redis.pcall(command, key, ...)
  if type(kept) == 'table' and kept.err then
    redis.call('DEL', key)
    return nil
  end
  return kept
end

local function keep(ends)
  local ms = math.max(1, math.ceil((ends - now) / MS))
  if injected then  -- the server's clock may go faster than the one that is handed in
    ms = ms + 86400000
  end
  redis.call('PEXPIRE', key, text(ms))
end

-- ---- fixed and sliding

local start, previous, current = 0, 0, 0

local function load_counts()
  local a, b, c = string.match(read('GET') or '', '^(%d+) (%d+) (%d+)$')
  a, b, c = whole(a), whole(b), whole(c)
  if a and b and c then
    start, previous, current = a, b, c
  end
  local healed = start > now + SKEW and previous + current > 0
  local ended = math.floor((now - start) / period)
  if kind == 'fixed' then
    if ended >= 1 then
      current = 0
    end
  elseif ended == 1 then
    start, previous, current = start + period, current, 0
  elseif ended > 1 then
    previous, current = 0, 0
  end
  if healed or previous + current == 0 then
    start = now
  end
  return healed
end

local function save_counts()
  if previous + current == 0 then
    redis.call('DEL', key)
    return
  end
  redis.call('SET', key, text(start) .. ' ' .. text(previous) .. ' ' .. text(current))
  keep(start + period * (kind == 'fixed' and 1 or 2))
end

local function used_counts()
  if previous == 0 then
    return current
  end
  local weight = math.ceil((start + period - math.max(now, start)) / MS)
  return math.floor(previous * weight / (period / MS)) + current
end

local function until_counts(most)
  if used_counts() <= most then
    return 0
  end
  if kind == 'fixed' then
    return start + period - now
  end
  local from, before, own = start, previous, current
  if own > most then
    from, before, own = from + period, own, 0
  end
  local weight = math.floor(((most - own + 1) * (period / MS) - 1) / before)
  return from + period - weight * MS - now
end

local function add_counts(units)
  current = current + units
  return math.max(now, start)
end

local function remove_counts(units)
  if at >= start then
    current = current - math.min(units, current)
  elseif kind == 'sliding' and at >= start - period then
    previous = previous - math.min(units, previous)
  end
end

-- ---- moving

local total, length = 0, 0

-- Moment and cost; of what is no entry, long ago and nothing.
local function parsed(kept)
  local moment, units = string.match(kept, '^(%d+) (%d+)$')
  moment, units = whole(moment), whole(units)
  if moment and units then
    return moment, units
  end
  return 0, 0
end

local function entry(index)
  local kept = redis.call('LINDEX', key, index)
  if not kept then
    return nil
  end
  return parsed(kept)
end

-- The clock was set back: what lies ahead came now.
local function heal_log()
  local moments, sums = {}, {}
  for _, kept in ipairs(redis.call('LRANGE', key, 0, -1)) do
    local moment, units = parsed(kept)
    moment = math.min(moment, now)
    if moments[#moments] == moment then
      sums[#sums] = sums[#sums] + units
    else
      moments[#moments + 1], sums[#sums + 1] = moment, units
    end
  end
  redis.call('DEL', key)
  for index = 1, #moments do
    redis.call('RPUSH', key, text(moments[index]) .. ' ' .. text(sums[index]))
  end
  length = #moments
end

-- Drop what is a period old; of very much the oldest, and the rest counts until the next call.
local function trim_log()
  local gone, is_old = 0, length > 0 and entry(0) + period <= now
  while is_old and gone < math.min(length, MOST) do
    for _, kept in ipairs(redis.call('LRANGE', key, gone, math.min(gone + CHUNK, length) - 1)) do
      local moment, units = parsed(kept)
      is_old = moment + period <= now
      if not is_old then
        break
      end
      gone, total = gone + 1, total - units
    end
  end
  if gone > 0 then
    redis.call('LTRIM', key, gone, -1)
    length = length - gone
    total = length > 0 and math.max(0, total) or 0
  end
end

local function load_log()
  length = read('LLEN') or 0
  if length == 0 then
    return false
  end
  total = whole(string.match(redis.call('RPOP', key), '^%d+$'))
  length = length - 1
  if not total then
    redis.call('DEL', key)
    total, length = 0, 0
  end
  local last = entry(-1)
  local healed = last ~= nil and last > now + SKEW
  if healed then
    heal_log()
  end
  trim_log()
  return healed
end

local function save_log()
  if length > 0 then
    local last = entry(-1)
    redis.call('RPUSH', key, text(total))
    keep(last + period)
  end
end

-- When the entry leaves with which enough of the oldest have left: looked for from the end to which it is nearer.
local function until_log(most)
  local surplus = total - most
  if surplus <= 0 then
    return 0
  end
  local newest = most < surplus
  local left = newest and most + 1 or surplus
  for first = 0, length - 1, CHUNK do
    local last = math.min(first + CHUNK, length) - 1
    local from, to = first, last
    if newest then
      from, to = length - 1 - last, length - 1 - first
    end
    local chunk = redis.call('LRANGE', key, from, to)
    for number = 1, #chunk do
      local moment, units = parsed(chunk[newest and #chunk + 1 - number or number])
      left = left - units
      if left <= 0 then
        return math.max(1, moment + period - now)  -- at once, where only this call was not enough to drop it
      end
    end
  end
  return period
end

local function add_log(units)
  local moment, before = entry(-1)
  if moment and moment >= now then
    redis.call('LSET', key, -1, text(moment) .. ' ' .. text(before + units))
  else
    moment = now
    redis.call('RPUSH', key, text(now) .. ' ' .. text(units))
    length = length + 1
  end
  total = total + units
  return moment
end

local function remove_log(units)
  local low, high = 0, length - 1
  while low <= high do
    local index = math.floor((low + high) / 2)
    local moment, counted = entry(index)
    if moment == at then
      total = total - math.min(units, counted)
      if units < counted then
        redis.call('LSET', key, index, text(moment) .. ' ' .. text(counted - units))
      else
        redis.call('LSET', key, index, 'gone')
        redis.call('LREM', key, 1, 'gone')
        length = length - 1
      end
      return
    end
    if moment < at then
      low = index + 1
    else
      high = index - 1
    end
  end
end

-- ---- what is asked

local moving = kind == 'moving'
local healed = moving and load_log() or not moving and load_counts()
local used = moving and total or not moving and used_counts()
local waits = moving and until_log or until_counts
local add = moving and add_log or add_counts
local allowed, wait, more, counted = true, 0, 0, now

if action == 'change' then
  if cost > 0 then
    local room = math.min(cost, math.max(0, 2 * count - used))
    if room > 0 then
      add(room)
    end
  elseif at >= 0 then
    (moving and remove_log or remove_counts)(-cost)
  end
else
  allowed = used + cost <= count
  if not allowed then
    wait = cost > count and -1 or waits(count - cost)
  elseif action == 'take' and cost > 0 then
    counted = add(cost)
  end
  local after = moving and total or not moving and used_counts()
  more = after > 0 and waits(after - 1) or 0
end

if moving then
  save_log()
elseif action == 'change' or healed or (action == 'take' and allowed and cost > 0) then
  save_counts()
end
return string.format('%.0f %.0f %.0f %.0f %.0f', allowed and 1 or 0, used, wait, more, counted)
