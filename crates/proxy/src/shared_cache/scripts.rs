//! Steps that the server takes as a whole. `KEYS[1]` is the hash of what is published, `KEYS[2]` the lease. What is there
//! may be of anybody's making: of another type, too large, or a lease that never ends.

/// Tells the time and the head. Whoever has seen that head already, and so wants a newer one, gets the lease if it is free.
/// A lease that no replica can have taken, since it lasts too long, is free. Arguments: the head that was seen, a token, the
/// lease's time in ms, the largest head. Answer: seconds, microseconds, head, length of the body, whether the lease is
/// granted.
pub(super) const LOOK: &str = "
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

/// Hands out fields, unless one of them is too large. Arguments: the largest length, the fields. Answer: their values, or
/// nothing.
pub(super) const FETCH: &str = "
local found = {}
for i = 2, #ARGV do
  if redis.call('HSTRLEN', KEYS[1], ARGV[i]) > tonumber(ARGV[1]) then return {} end
  found[i - 1] = redis.call('HGET', KEYS[1], ARGV[i]) or ''
end
return found";

/// Makes the lease last. Arguments: the token, the lease's time in ms.
pub(super) const RENEW: &str = "
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])";

/// Gives the lease back. Argument: the token.
pub(super) const RELEASE: &str = "
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[2])";

/// Publishes and gives the lease back, if it is still held: nothing newer is ever overwritten. Arguments: the token, for how
/// many ms it is kept, head, identities, and the body unless it is there already. Answer: whether there is a body now.
pub(super) const PUBLISH: &str = "
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 1 end
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
if not ARGV[5] and redis.call('HEXISTS', KEYS[1], 'body') == 0 then return 0 end
redis.call('HSET', KEYS[1], 'head', ARGV[3], 'identities', ARGV[4])
if ARGV[5] then redis.call('HSET', KEYS[1], 'body', ARGV[5]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
return 1";
