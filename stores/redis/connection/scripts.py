"""Lua scripts: where a decision and the command that follows it must not be parted, or one answer stands for several.

Each does the same with every key and answers for each of them, so that it can be called with many keys at one server,
and with one at a time in a cluster, where the keys of a call must be of one slot. They use only what Redis 6.2 knows.
INSPECT, TTLS, IDLE and ADD_TTL do not count as a use of a key: idle times stay as they were.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

GONE = -2
NO_TTL = -1
OTHER_TYPE = -3
NO_STRING = -1


@dataclass(frozen=True, slots=True)
class Script:
    """A script.

    Attributes:
        text: in Lua.
        sha: how Redis names it.
    """

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False)
        object.__setattr__(self, "sha", digest.hexdigest())


#: For each key: its TTL in milliseconds, NO_TTL, GONE, or OTHER_TYPE if it is neither string nor hash.
INSPECT = Script("""
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

#: For each key of whatever type: its TTL in milliseconds, NO_TTL, GONE; OTHER_TYPE if it has no TTL and is neither
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

#: For each key: whole seconds since it was last used, or -1 if that is not known: with an LFU eviction policy, and for
#: small numbers, which many keys may share.
IDLE = Script("""
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

#: For each key: the length of a string, NO_STRING for anything else, GONE.
LENGTHS = Script("""
local found = {}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  found[i] = kind == 'string' and redis.call('STRLEN', key) or kind == 'none' and -2 or -1
end
return found
""")

#: For each key: the string, or nothing.
TEXTS = Script("""
local found = {}
for i, key in ipairs(KEYS) do
  found[i] = redis.call('TYPE', key).ok == 'string' and redis.call('GET', key)
end
return found
""")

#: Gives each key that has no TTL the one in its argument, in milliseconds. For each key: 1 if it got one.
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

#: Deletes each key that is still what it was when it was read. Arguments of a key: the mark of its content, its TTL
#: then (which may be shorter by now, but no longer), and the names of the hash fields in the mark. For each key: 1
#: deleted, 0 changed, GONE.
DELETE_UNCHANGED = Script("""
local found = {}
local each = #ARGV / #KEYS
for i, key in ipairs(KEYS) do
  local first = (i - 1) * each + 1
  local kind = redis.call('TYPE', key).ok
  local mark = ''
  if kind == 'string' then
    mark = 's' .. redis.sha1hex(redis.call('GET', key))
  elseif kind == 'hash' then
    local parts = {}
    for j = first + 2, first + each - 1 do
      local value = redis.call('HGET', key, ARGV[j])
      parts[#parts + 1] = value and (#value .. ':' .. value) or '-'
    end
    mark = 'h' .. redis.sha1hex(table.concat(parts))
  end
  local before, now = tonumber(ARGV[first + 1]), redis.call('PTTL', key)
  if kind == 'none' then
    found[i] = -2
  elseif mark == ARGV[first] and now <= before and (now >= 0 or before < 0) then
    found[i] = redis.call('UNLINK', key)
  else
    found[i] = 0
  end
end
return found
""")

#: Prolongs a lock that holds the token in the first argument by the milliseconds in the second. 1 if it did.
RENEW = Script("""
local found = {}
for i, key in ipairs(KEYS) do
  found[i] = 0
  if redis.call('GET', key) == ARGV[2 * i - 1] then
    found[i] = redis.call('PEXPIRE', key, ARGV[2 * i])
  end
end
return found
""")

#: Deletes a lock that holds the token in its argument. 1 if it did.
RELEASE = Script("""
local found = {}
for i, key in ipairs(KEYS) do
  found[i] = 0
  if redis.call('GET', key) == ARGV[i] then
    found[i] = redis.call('UNLINK', key)
  end
end
return found
""")
