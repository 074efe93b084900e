//! Scripts that the server runs atomically. `KEYS[1]` is the hash with the publication, `KEYS[2]` the lease. The scripts
//! tolerate values that others wrote: of another type, too large, or a lease that never expires.

/// Returns the time and the head. Grants the lease, if it is free, to a replica that has seen that head already and so needs a
/// newer one. A lease that lasts longer than replicas set is free. Arguments: the head that was seen, a token, the lease's
/// time in ms, the size limit of a head. Answer: seconds, microseconds, head, length of the body, whether the lease is
/// granted.
pub(super) const POLL: &str = "
local head, body, granted = '', 0, 0
if redis.call('TYPE', KEYS[1]).ok == 'hash' then
  body = redis.call('HSTRLEN', KEYS[1], 'body')
  if redis.call('HSTRLEN', KEYS[1], 'head') <= tonumber(ARGV[4]) then head = redis.call('HGET', KEYS[1], 'head') or '' end
end
if head == ARGV[1] then
  local holder = redis.pcall('GET', KEYS[2])
  local left = redis.call('PTTL', KEYS[2])
  if left < 0 or left > tonumber(ARGV[3]) or type(holder) ~= 'string' then
    redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
    holder = ARGV[2]
  end
  if holder == ARGV[2] then granted = 1 end
end
local time = redis.call('TIME')
return {tonumber(time[1]), tonumber(time[2]), head, body, granted}";

/// Returns fields, unless one of them is too large. Arguments: the size limit, the fields. Answer: their values, or nothing.
pub(super) const FETCH: &str = "
local found = {}
for i = 2, #ARGV do
  if redis.call('HSTRLEN', KEYS[1], ARGV[i]) > tonumber(ARGV[1]) then return {} end
  found[i - 1] = redis.call('HGET', KEYS[1], ARGV[i]) or ''
end
return found";

/// Renews the lease. Arguments: the token, the lease's time in ms.
pub(super) const RENEW: &str = "
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])";

/// Releases the lease. Argument: the token.
pub(super) const RELEASE: &str = "
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[2])";

/// Publishes and releases the lease, if it is still held; so nothing newer is ever overwritten. Arguments: the token, the
/// time to live in ms, head, identities, and the body unless it is published already. Answer: whether there is a body now.
pub(super) const PUBLISH: &str = "
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 1 end
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
if not ARGV[5] and redis.call('HEXISTS', KEYS[1], 'body') == 0 then return 0 end
redis.call('HSET', KEYS[1], 'head', ARGV[3], 'identities', ARGV[4])
if ARGV[5] then redis.call('HSET', KEYS[1], 'body', ARGV[5]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
return 1";
