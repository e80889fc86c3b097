#!lua name=sluicebox_2
-- What the log on Redis writes, and reads that want more than one command. Redis runs one function at a time and does not
-- roll back: each checks everything before it writes anything.
--
-- KEYS[1] is the beginning of all keys of a log: sb:{NAMESPACE}
--   :meta     hash: id of the log, seq (of the last entry), time (of the last entry, ms), flushed, snapshot
--   :log      stream: the entry with sequence n has the id n-0; fields k (e: entry, p: part), t (ms), d (payload)
--   :last     hash: of each subject the sequence of its last entry
--   :value:HANDLER:KEY  hash: of each entry of a key's state "VERSION=value", or "VERSION!" where it was deleted
--   :keys:HANDLER       sorted set, by text: keys that have such a hash
--   :deleted  sorted set, by version: which entries were deleted
--   :letters  hash: dead letters whose entries are gone
--   :snapshot:SEQ:WRITER  hash: the pieces of a snapshot;  :snapshots  sorted set of these keys by sequence
--   :modules  hash: of each module HANDLER/DIGEST how many pieces it has, and what is said of it
--   :module:HANDLER/DIGEST  hash: its pieces;  :begun  sorted set, by time in ms: modules that are not whole yet
--   :in       stream: what plain clients add, with ids and fields of theirs
--
-- Every write names the log (its id) and the life of the server (the epoch): data that went away, wholly or at its end, with
-- a server that was started again or replaced is never written on by a host that had more of it.

local epoch

local function life()
  if not epoch then
    local now = redis.call('TIME')
    epoch = now[1] .. '.' .. now[2]
  end
  return epoch
end

local function check(root, id, known)
  if redis.call('HGET', root .. ':meta', 'id') ~= id then
    return redis.error_reply('SBGONE the log is not there any more, or another one is in its place')
  end
  if known ~= life() then
    return redis.error_reply('SBEPOCH the server was started again, or another one took its place')
  end
end

local function now_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

local function field(entry, name)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == name then return entry[2][i + 1] end
  end
end

-- Pieces of modules go that nobody made whole for an hour: whoever put them died meanwhile.
local function drop_loose(root)
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', root .. ':begun', '-inf', now_ms() - 3600 * 1000, 'LIMIT', 0, 100)) do
    if redis.call('HEXISTS', root .. ':modules', name) == 0 then redis.call('UNLINK', root .. ':module:' .. name) end
    redis.call('ZREM', root .. ':begun', name)
  end
end

-- id, or '' for a host that does not know the log; sequence and beginning of the last entry that the host has, or 0;
-- an id for a log that is not there, or ''. Returns id, epoch, sequence of the last entry.
local function hello(keys, args)
  local meta = keys[1] .. ':meta'
  local id = redis.call('HGET', meta, 'id')
  if not id then
    if args[4] == '' then
      return redis.error_reply('SBGONE the log is not there any more')
    end
    if redis.call('EXISTS', keys[1] .. ':log', keys[1] .. ':last', keys[1] .. ':snapshots') > 0 then
      return redis.error_reply('SBGONE of the log only parts are there')
    end
    id = args[4]
    redis.call('HSET', meta, 'id', id, 'seq', '0', 'time', '0', 'flushed', '0')
  end
  if args[1] ~= '' and args[1] ~= id then
    return redis.error_reply('SBGONE another log is in its place')
  end
  local last = tonumber(redis.call('HGET', meta, 'seq'))
  local known = tonumber(args[2])
  if known > last then
    return redis.error_reply('SBGONE its end is lost: it ends with entry ' .. last .. ', this host has ' .. known)
  end
  if known > 0 and args[3] ~= '' then
    local found = redis.call('XRANGE', keys[1] .. ':log', known .. '-0', known .. '-0')[1]
    if found and string.sub(field(found, 'd') or '', 1, #args[3]) ~= args[3] then
      return redis.error_reply('SBGONE its end is lost: entry ' .. known .. ' is another one than this host has')
    end
  end
  if last > 0 and redis.call('EXISTS', keys[1] .. ':log') == 0 then
    return redis.error_reply('SBGONE its stream is not there any more')
  end
  drop_loose(keys[1])
  return { id, life(), last }
end

-- id, epoch, subject, kind, the sequence of the last entry on the subject or '', payload. Returns the sequence.
local function publish(keys, args)
  local root = keys[1]
  local refused = check(root, args[1], args[2])
  if refused then return refused end
  local last = redis.call('HGET', root .. ':last', args[3]) or '0'
  if args[5] ~= '' and args[5] ~= last then
    return redis.error_reply('SBSTALE ' .. last .. ' is the last entry on ' .. args[3])
  end
  -- The entry comes first: who may not do what follows must not do that either.
  if not redis.acl_check_cmd('HSET', root .. ':last', 'a', 'b') then
    return redis.error_reply('NOPERM this user may not write to the hashes of the log')
  end
  local known = redis.call('HMGET', root .. ':meta', 'seq', 'time')
  local seq, time = tonumber(known[1]) + 1, tonumber(known[2])
  time = math.max(time, now_ms())
  local add = { 'XADD', root .. ':log' }
  -- A stream that somebody deleted is not begun anew.
  if seq > 1 then add[#add + 1] = 'NOMKSTREAM' end
  for _, word in ipairs({ string.format('%.0f-0', seq), 'k', args[4], 't', string.format('%.0f', time), 'd', args[6] }) do
    add[#add + 1] = word
  end
  local added = redis.pcall(unpack(add))
  if type(added) == 'table' and added.err then
    if string.find(added.err, 'equal or smaller', 1, true) then
      return redis.error_reply('SBGONE somebody else writes to its stream')
    end
    return added
  end
  if not added then
    return redis.error_reply('SBGONE its stream is not there any more')
  end
  redis.call('HSET', root .. ':last', args[3], string.format('%.0f', seq))
  redis.call('HSET', root .. ':meta', 'seq', string.format('%.0f', seq), 'time', string.format('%.0f', time))
  return seq
end

-- A time in ms. Returns the sequence of the first entry that is not older, or 0. Times never fall.
local function since(keys, args)
  local log, wanted = keys[1] .. ':log', tonumber(args[1])
  local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  if not first then return 0 end
  local low = tonumber(string.match(first[1], '^%d+'))
  local high = tonumber(redis.call('HGET', keys[1] .. ':meta', 'seq')) + 1
  local beyond = high
  while low < high do
    local middle = math.floor((low + high) / 2)
    local found = redis.call('XRANGE', log, string.format('%.0f-0', middle), '+', 'COUNT', 1)[1]
    if not found or tonumber(field(found, 't') or '0') >= wanted then high = middle else low = middle + 1 end
  end
  if low >= beyond then return 0 end
  return low
end

-- id, epoch, sequence: every entry before it goes.
local function purge(keys, args)
  local refused = check(keys[1], args[1], args[2])
  if refused then return refused end
  redis.call('XTRIM', keys[1] .. ':log', 'MINID', args[3] .. '-0')
  return 0
end

local function version_of(stored)
  return stored and tonumber(string.match(stored, '^%d+')) or -1
end

-- id, epoch, then for each value: handler, key, entry, version, '=' or '!', value.
local function write(keys, args)
  local root = keys[1]
  local refused = check(root, args[1], args[2])
  if refused then return refused end
  -- Up to there every value was written: one that is not there was deleted since.
  local flushed = tonumber(redis.call('HGET', root .. ':meta', 'flushed'))
  redis.call('ZCARD', root .. ':deleted')
  local due = {}
  for i = 3, #args, 6 do
    local version = tonumber(args[i + 3])
    redis.call('ZCARD', root .. ':keys:' .. args[i])
    local stored = redis.call('HGET', root .. ':value:' .. args[i] .. ':' .. args[i + 1], args[i + 2])
    if version > flushed and version > version_of(stored) then due[#due + 1] = i end
  end
  for _, i in ipairs(due) do
    local handler, key, entry, version = args[i], args[i + 1], args[i + 2], args[i + 3]
    redis.call('HSET', root .. ':value:' .. handler .. ':' .. key, entry, version .. args[i + 4] .. args[i + 5])
    redis.call('ZADD', root .. ':keys:' .. handler, 0, key)
    if args[i + 4] == '!' then
      redis.call('ZADD', root .. ':deleted', version, cmsgpack.pack({ handler, key, entry }))
    end
  end
  return #due
end

local function drop(root, handler, key, entry)
  local value = root .. ':value:' .. handler .. ':' .. key
  redis.call('HDEL', value, entry)
  if redis.call('EXISTS', value) == 0 then redis.call('ZREM', root .. ':keys:' .. handler, key) end
end

-- id, epoch, version: every value up to it was written, so what was deleted up to it is forgotten. Returns whether there
-- is more to forget.
local function written(keys, args)
  local root = keys[1]
  local refused = check(root, args[1], args[2])
  if refused then return refused end
  local flushed = math.max(tonumber(redis.call('HGET', root .. ':meta', 'flushed')), tonumber(args[3]))
  local due = redis.call('ZRANGEBYSCORE', root .. ':deleted', '-inf', string.format('%.0f', flushed), 'LIMIT', 0, 500)
  redis.call('HSET', root .. ':meta', 'flushed', string.format('%.0f', flushed))
  for _, packed in ipairs(due) do
    local handler, key, entry = unpack(cmsgpack.unpack(packed))
    local stored = redis.call('HGET', root .. ':value:' .. handler .. ':' .. key, entry)
    if stored and string.match(stored, '^%d+(.)') == '!' and version_of(stored) <= flushed then
      drop(root, handler, key, entry)
    end
    redis.call('ZREM', root .. ':deleted', packed)
  end
  return #due == 500 and 1 or 0
end

-- handler, first key as ZRANGEBYLEX has it, prefix. Returns keys, each as a list: key, entry, version, bytes (-1: it was
-- deleted), entry, …; fewer than 32 when there are no more.
local function sizes(keys, args)
  local root, prefix = keys[1], args[3]
  local found = {}
  for _, key in ipairs(redis.call('ZRANGEBYLEX', root .. ':keys:' .. args[1], args[2], '+', 'LIMIT', 0, 32)) do
    if string.sub(key, 1, #prefix) ~= prefix then break end
    local stored = redis.call('HGETALL', root .. ':value:' .. args[1] .. ':' .. key)
    local of = { key }
    for i = 1, #stored, 2 do
      local version, kind = string.match(stored[i + 1], '^(%d+)(.)')
      of[#of + 1] = stored[i]
      of[#of + 1] = version
      of[#of + 1] = kind == '!' and '-1' or tostring(#stored[i + 1] - #version - 1)
    end
    found[#found + 1] = of
  end
  return found
end

-- id, epoch, handler, version, first key as ZRANGEBYLEX has it: values that are older go. Returns the last key looked at,
-- or nothing when that were all.
local function forget(keys, args)
  local root, handler, version = keys[1], args[3], tonumber(args[4])
  local refused = check(root, args[1], args[2])
  if refused then return refused end
  local page = redis.call('ZRANGEBYLEX', root .. ':keys:' .. handler, args[5], '+', 'LIMIT', 0, 200)
  for _, key in ipairs(page) do
    local stored = redis.call('HGETALL', root .. ':value:' .. handler .. ':' .. key)
    for i = 1, #stored, 2 do
      if version_of(stored[i + 1]) < version then drop(root, handler, key, stored[i]) end
    end
  end
  return #page == 200 and page[200] or false
end

-- id, epoch, letter, content; without content it goes.
local function letter(keys, args)
  local refused = check(keys[1], args[1], args[2])
  if refused then return refused end
  if args[4] then return redis.call('HSETNX', keys[1] .. ':letters', args[3], args[4]) end
  return redis.call('HDEL', keys[1] .. ':letters', args[3])
end

-- id, epoch, key of a snapshot, its sequence, number of a piece, piece.
local function piece(keys, args)
  local refused = check(keys[1], args[1], args[2])
  if refused then return refused end
  redis.call('ZADD', keys[1] .. ':snapshots', args[4], args[3])
  return redis.call('HSET', keys[1] .. ':snapshot:' .. args[3], args[5], args[6])
end

-- id, epoch, key of a snapshot that is whole, its sequence, number of pieces: it takes the place of older ones, unless one
-- is there that is as new. Returns the sequence of the newest.
local function snapshot(keys, args)
  local root = keys[1]
  local refused = check(root, args[1], args[2])
  if refused then return refused end
  local there = redis.call('HGET', root .. ':meta', 'snapshot')
  local newest, name = 0, false
  if there then
    local sequence, of = string.match(there, '^(%d+) %d+ (.*)$')
    newest, name = tonumber(sequence), of
  end
  if tonumber(args[4]) > newest then
    redis.call('HSET', root .. ':meta', 'snapshot', args[4] .. ' ' .. args[5] .. ' ' .. args[3])
    newest, name = tonumber(args[4]), args[3]
  end
  -- Also those of hosts that died while they wrote them, once they are older.
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', root .. ':snapshots', '-inf', string.format('%.0f', newest))) do
    if old ~= name then
      redis.call('UNLINK', root .. ':snapshot:' .. old)
      redis.call('ZREM', root .. ':snapshots', old)
    end
  end
  return newest
end

-- id, epoch, module, number of a piece, piece.
local function module_piece(keys, args)
  local root = keys[1]
  local refused = check(root, args[1], args[2])
  if refused then return refused end
  redis.call('ZADD', root .. ':begun', now_ms(), args[3])
  return redis.call('HSET', root .. ':module:' .. args[3], args[4], args[5])
end

-- id, epoch, module, number of its pieces, what is said of it: it is whole from here on.
local function module_whole(keys, args)
  local root = keys[1]
  local refused = check(root, args[1], args[2])
  if refused then return refused end
  if redis.call('HLEN', root .. ':module:' .. args[3]) < tonumber(args[4]) then
    return redis.error_reply('SBPIECES pieces of the module are not there any more: put it again')
  end
  redis.call('HSET', root .. ':modules', args[3], args[5])
  redis.call('ZREM', root .. ':begun', args[3])
  drop_loose(root)
  return 0
end

-- id, epoch, module: it goes.
local function module_drop(keys, args)
  local root = keys[1]
  local refused = check(root, args[1], args[2])
  if refused then return refused end
  redis.call('HDEL', root .. ':modules', args[3])
  redis.call('ZREM', root .. ':begun', args[3])
  return redis.call('UNLINK', root .. ':module:' .. args[3])
end

local function is_before(id, other)
  local function compare(a, b)
    if #a ~= #b then return #a < #b and -1 or 1 end
    if a == b then return 0 end
    return a < b and -1 or 1
  end
  -- As text: they may be larger than a number can be here.
  local ms, number = string.match(id, '^(%d+)-(%d+)$')
  local other_ms, other_number = string.match(other, '^(%d+)-(%d+)$')
  local by_ms = compare(ms, other_ms)
  return by_ms < 0 or (by_ms == 0 and compare(number, other_number) < 0)
end

-- id, epoch, id of an entry of plain clients, most entries, most bytes, most bytes of an entry. Returns whether the stream is
-- another one than that which had this entry, how many entries were ever added, whether there are more, and entries after
-- it, of another stream all: id and fields, or id, topic and size of one that is too large.
local function arrived(keys, args)
  local refused = check(keys[1], args[1], args[2])
  if refused then return refused end
  local stream, after, is_anew = keys[1] .. ':in', args[3], 0
  if redis.call('EXISTS', stream) == 0 then return { 0, 0, 0, {} } end
  local info, known = redis.call('XINFO', 'STREAM', stream), {}
  for i = 1, #info, 2 do known[info[i]] = info[i + 1] end
  local last = known['last-generated-id']
  if is_before(last, after) then
    after, is_anew = '0-0', 1
  end
  local found, bytes = {}, 0
  while after ~= last do
    local page = redis.call('XRANGE', stream, '(' .. after, '+', 'COUNT', 10)
    if #page == 0 then
      after = last
    end
    for _, entry in ipairs(page) do
      if #found == tonumber(args[4]) or bytes >= tonumber(args[5]) then
        return { is_anew, known['entries-added'], 1, found }
      end
      local size = 0
      for _, text in ipairs(entry[2]) do size = size + #text end
      if size > tonumber(args[6]) then
        found[#found + 1] = { entry[1], string.sub(field(entry, 'topic') or '', 1, 200), size }
      else
        found[#found + 1] = entry
        bytes = bytes + size
      end
      after = entry[1]
    end
  end
  return { is_anew, known['entries-added'], 0, found }
end

local function register(name, callback, ...)
  redis.register_function({ function_name = 'sluicebox_2_' .. name, callback = callback, flags = { ... } })
end

register('since', since, 'no-writes')
register('sizes', sizes, 'no-writes')
register('publish', publish)
register('write', write)
register('module_piece', module_piece)
register('module_whole', module_whole)
-- What hosts need to make room is allowed when there is none.
register('hello', hello, 'allow-oom')
register('publish_anyway', publish, 'allow-oom')
register('purge', purge, 'allow-oom')
register('written', written, 'allow-oom')
register('forget', forget, 'allow-oom')
register('letter', letter, 'allow-oom')
register('module_drop', module_drop, 'allow-oom')
register('arrived', arrived, 'allow-oom')
register('piece', piece, 'allow-oom')
register('snapshot', snapshot, 'allow-oom')
