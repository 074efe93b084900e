//! Scripts that the server runs atomically. `KEYS[1]` is the hash with the stamps, `KEYS[2]` the one with the values. The
//! scripts tolerate what others wrote: keys of another type, too many fields, and texts that are too long.

/// The beginning of all scripts: removes keys of another type.
pub(super) const CLEAN: &str = "
for _, key in ipairs(KEYS) do
  local type = redis.call('TYPE', key).ok
  if type ~= 'hash' and type ~= 'none' then redis.call('DEL', key) end
end";

/// Returns all fields, each followed by its stamp. Removes what no replica writes, and fields without a value. Arguments: the maximum
/// number of fields, the maximum length of a field and of a stamp.
pub(super) const POLL: &str = "
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[1]) or redis.call('HLEN', KEYS[2]) > tonumber(ARGV[1]) then
  redis.call('DEL', KEYS[1], KEYS[2])
end
local found = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if #field > tonumber(ARGV[2]) or redis.call('HSTRLEN', KEYS[1], field) > tonumber(ARGV[2])
    or redis.call('HEXISTS', KEYS[2], field) == 0 then
    redis.call('HDEL', KEYS[1], field)
    redis.call('HDEL', KEYS[2], field)
  else
    found[#found + 1] = field
    found[#found + 1] = redis.call('HGET', KEYS[1], field)
  end
end
return found";

/// Returns a value; nothing if it has another stamp, and an empty text if it is too large. Arguments: the field, the stamp, the
/// size limit.
pub(super) const FETCH: &str = "
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return false end
if redis.call('HSTRLEN', KEYS[2], ARGV[1]) > tonumber(ARGV[3]) then return '' end
return redis.call('HGET', KEYS[2], ARGV[1])";

/// Publishes a value, unless another one was published meanwhile. Arguments: the field, the stamp that it had, or an empty
/// text, the new stamp, the value, the time to live in ms. Answer: whether it was published.
pub(super) const PUBLISH: &str = "
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return 1";

/// Removes a field, if it has this stamp. Arguments: the field, the stamp.
pub(super) const DISCARD: &str = "
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])";
