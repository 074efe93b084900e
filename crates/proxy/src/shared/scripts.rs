//! Steps that the server takes as a whole. `KEYS[1]` is the hash of what is published, `KEYS[2]` the lease.

/// Tells the time and the head. Whoever has seen that head already, and so wants a newer one, gets the lease if it is free.
/// Arguments: the head that was seen, a token, the lease's time in ms. Answer: seconds, microseconds, head, length of the
/// body, whether the lease is granted.
pub(super) const LOOK: &str = "
local head = redis.call('HGET', KEYS[1], 'head') or ''
local granted = 0
if head == ARGV[1] then
  local holder = redis.call('GET', KEYS[2])
  if not holder then redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]) end
  if not holder or holder == ARGV[2] then granted = 1 end
end
local time = redis.call('TIME')
return {tonumber(time[1]), tonumber(time[2]), head, redis.call('HSTRLEN', KEYS[1], 'body'), granted}";

/// Makes the lease last. Arguments: the token, the lease's time in ms.
pub(super) const RENEW: &str = "
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])";

/// Gives the lease back. Argument: the token.
pub(super) const RELEASE: &str = "
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[2])";

/// Publishes and gives the lease back, if it is still held: nothing newer is ever overwritten. Arguments: the token, for how
/// many ms it is kept, head, identities, and the body unless it is there already. Answer: whether there is a body now.
pub(super) const PUBLISH: &str = "
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 1 end
if not ARGV[5] and redis.call('HEXISTS', KEYS[1], 'body') == 0 then return 0 end
redis.call('HSET', KEYS[1], 'head', ARGV[3], 'identities', ARGV[4])
if ARGV[5] then redis.call('HSET', KEYS[1], 'body', ARGV[5]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
return 1";
