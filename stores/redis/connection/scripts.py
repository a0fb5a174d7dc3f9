"""Lua scripts: check and change a key atomically, or save round trips.

Each script does the same for every key and returns one reply per key. So it can be called with many keys on one server,
and with one key at a time in a cluster, where all keys of a call must be in one slot. Redis 6.2 or later runs them.
KEY_STATES, TTLS, IDLE_TIMES and ADD_TTL do not reset idle times.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

NO_KEY = -2
"""The key does not exist, as PTTL replies."""
NO_TTL = -1
"""The key has no TTL, as PTTL replies."""
OTHER_TYPE = -3
"""The key is neither string nor hash."""
NOT_A_STRING = -1
"""The key exists and is not a string."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script.

    Attributes:
        text: source.
        sha: SHA-1 for EVALSHA.
    """

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False)
        object.__setattr__(self, "sha", digest.hexdigest())


#: For each key: its TTL in milliseconds, NO_TTL, NO_KEY, or OTHER_TYPE if it is neither string nor hash.
KEY_STATES = Script("""
local found = {}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then
    found[i] = -2
  elseif kind == 'string' or kind == 'hash' then
    found[i] = redis.call('PTTL', key)
  else
    found[i] = -3
  end
end
return found
""")

#: For each key of any type: its TTL in milliseconds, NO_TTL or NO_KEY; OTHER_TYPE if it has no TTL and is neither
#: string nor hash.
TTLS = Script("""
local found = {}
for i, key in ipairs(KEYS) do
  local ttl = redis.call('PTTL', key)
  if ttl == -1 then
    local kind = redis.call('TYPE', key).ok
    if kind ~= 'string' and kind ~= 'hash' then
      ttl = -3
    end
  end
  found[i] = ttl
end
return found
""")

#: For each key: its idle time in whole seconds, or -1 if unknown: with an LFU eviction policy, and for small integers,
#: whose object many keys may share.
IDLE_TIMES = Script("""
local found = {}
for i, key in ipairs(KEYS) do
  local idle = redis.pcall('OBJECT', 'IDLETIME', key)
  if type(idle) ~= 'number' or redis.call('OBJECT', 'ENCODING', key) == 'int' then
    idle = -1
  end
  found[i] = idle
end
return found
""")

#: For each key: the length of a string, NOT_A_STRING for another type, NO_KEY.
STRING_LENGTHS = Script("""
local found = {}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  found[i] = kind == 'string' and redis.call('STRLEN', key) or kind == 'none' and -2 or -1
end
return found
""")

#: For each key: the string, or nil for another type.
STRINGS = Script("""
local found = {}
for i, key in ipairs(KEYS) do
  found[i] = redis.call('TYPE', key).ok == 'string' and redis.call('GET', key)
end
return found
""")

#: Sets the TTL in the key's argument, in milliseconds, unless the key has one. For each key: 1 if it was set.
ADD_TTL = Script("""
local added = {}
for i, key in ipairs(KEYS) do
  added[i] = 0
  if redis.call('PTTL', key) == -1 then
    added[i] = redis.call('PEXPIRE', key, ARGV[i])
  end
end
return added
""")

#: Deletes each key that has not changed since it was read. Arguments of a key: the digest of its content, its TTL then
#: (a longer TTL now means that it was used), and the hash fields that the digest covers. For each key: 1 deleted,
#: 0 changed, NO_KEY.
DELETE_IF_UNCHANGED = Script("""
local found = {}
local each = #ARGV / #KEYS
for i, key in ipairs(KEYS) do
  local first = (i - 1) * each + 1
  local kind = redis.call('TYPE', key).ok
  local digest = ''
  if kind == 'string' then
    digest = 's' .. redis.sha1hex(redis.call('GET', key))
  elseif kind == 'hash' then
    local parts = {}
    for j = first + 2, first + each - 1 do
      local value = redis.call('HGET', key, ARGV[j])
      parts[#parts + 1] = value and (#value .. ':' .. value) or '-'
    end
    digest = 'h' .. redis.sha1hex(table.concat(parts))
  end
  local before, now = tonumber(ARGV[first + 1]), redis.call('PTTL', key)
  if kind == 'none' then
    found[i] = -2
  elseif digest == ARGV[first] and now <= before and (now >= 0 or before < 0) then
    found[i] = redis.call('UNLINK', key)
  else
    found[i] = 0
  end
end
return found
""")

#: Renews a lock whose value is the token in the first argument, for the milliseconds in the second. 1 if renewed.
RENEW_LOCK = Script("""
local found = {}
for i, key in ipairs(KEYS) do
  found[i] = 0
  if redis.call('GET', key) == ARGV[2 * i - 1] then
    found[i] = redis.call('PEXPIRE', key, ARGV[2 * i])
  end
end
return found
""")

#: Deletes a lock whose value is the token in its argument. 1 if deleted.
RELEASE_LOCK = Script("""
local found = {}
for i, key in ipairs(KEYS) do
  found[i] = 0
  if redis.call('GET', key) == ARGV[i] then
    found[i] = redis.call('UNLINK', key)
  end
end
return found
""")
