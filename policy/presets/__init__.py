"""Known applications, so that nobody has to map their tables and keys.

A preset is one entry: of :class:`DatabasePreset` for a table, of :class:`RedisPreset` for keys and session content.
"""

from policy.presets.database import DatabasePreset
from policy.presets.redis import RedisPreset

__all__ = ["DatabasePreset", "RedisPreset"]
