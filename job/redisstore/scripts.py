"""Lua scripts: where a decision and the command that follows it must not be parted, or one answer stands for several.

They use only what Redis 6.2 knows, and none of them counts as a use of a key: idle times stay as they were.
"""

from __future__ import annotations

GONE = -2
NO_TTL = -1
OTHER_TYPE = -3

#: For each key: its TTL in milliseconds, NO_TTL, GONE, or OTHER_TYPE if it is neither string nor hash.
INSPECT = """
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
"""

#: For each key: whole seconds since it was last used, or -1 if that is not known: with an LFU eviction policy, and for
#: small numbers, which many keys may share.
IDLE = """
local found = {}
for i, key in ipairs(KEYS) do
  local idle = redis.pcall('OBJECT', 'IDLETIME', key)
  if type(idle) ~= 'number' or redis.call('OBJECT', 'ENCODING', key) == 'int' then
    idle = -1
  end
  found[i] = idle
end
return found
"""

#: Gives each key that has no TTL the one in ARGV, in milliseconds. Returns how many got one.
ADD_TTL = """
local added = 0
for i, key in ipairs(KEYS) do
  if redis.call('PTTL', key) == -1 then
    added = added + redis.call('PEXPIRE', key, ARGV[i])
  end
end
return added
"""
