-- One window of one key, as apigate.throttling.windows says; its whole numbers are exact in doubles.
-- A fixed or sliding window is a string "start previous count"; a moving one a list of "moment cost", oldest first,
-- and its sum as the last element.
-- KEYS: the key. ARGV[1]: the time in us to go by, empty for the server's. ARGV[2], with spaces between: kind, what to
-- do (take, look, change), count, period in us, cost or units, time counted under (-1 for none).
-- Answers one line of numbers: 1 if allowed, used, wait (-1 for never), until it admits more, time counted under.
local key, injected, now = KEYS[1], ARGV[1] ~= '', tonumber(ARGV[1])
local kind, action, count, period, cost, at = string.match(ARGV[2], '^(%a+) (%a+) (%d+) (%d+) (-?%d+) (-?%d+)$')
count, period, cost, at = tonumber(count), tonumber(period), tonumber(cost), tonumber(at)
local MS, SKEW = 1000, 1000000
if not injected then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function text(number)
  return string.format('%.0f', number)
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
  local kept = redis.call('GET', key)
  if kept then
    local a, b, c = string.match(kept, '^(%d+) (%d+) (%d+)$')
    start, previous, current = tonumber(a), tonumber(b), tonumber(c)
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

local function entry(index)
  local kept = redis.call('LINDEX', key, index)
  if not kept then
    return nil
  end
  local moment, units = string.match(kept, '^(%d+) (%d+)$')
  return tonumber(moment), tonumber(units)
end

local function load_log()
  length = redis.call('LLEN', key)
  if length == 0 then
    return false
  end
  total = tonumber(redis.call('RPOP', key))
  length = length - 1
  local last = entry(-1)
  local healed = last ~= nil and last > now + SKEW
  if healed then
    local moments, sums = {}, {}
    for _, kept in ipairs(redis.call('LRANGE', key, 0, -1)) do
      local moment, units = string.match(kept, '^(%d+) (%d+)$')
      moment = math.min(tonumber(moment), now)
      if moments[#moments] == moment then
        sums[#sums] = sums[#sums] + tonumber(units)
      else
        moments[#moments + 1], sums[#sums + 1] = moment, tonumber(units)
      end
    end
    redis.call('DEL', key)
    for index = 1, #moments do
      redis.call('RPUSH', key, text(moments[index]) .. ' ' .. text(sums[index]))
    end
    length = #moments
  end
  while length > 0 do
    local moment, units = entry(0)
    if moment + period > now then
      break
    end
    redis.call('LPOP', key)
    total, length = total - units, length - 1
  end
  return healed
end

local function save_log()
  if length > 0 then
    local last = entry(-1)
    redis.call('RPUSH', key, text(total))
    keep(last + period)
  end
end

local function until_log(most)
  local surplus, index = total - most, 0
  if surplus <= 0 then
    return 0
  end
  while true do
    local moment, units = entry(index)
    surplus = surplus - units
    if surplus <= 0 then
      return moment + period - now
    end
    index = index + 1
  end
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
  for index = length - 1, 0, -1 do
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
    end
    if moment <= at then
      return
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
