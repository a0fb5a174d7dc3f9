"""What the Redis user must be allowed to do. Documentation and error messages name these, and a test needs each."""

from __future__ import annotations

from policy.stores import RedisKeys

#: As ACL SETUSER takes them.
PERMISSIONS = (
    "+scan", "+time", "+evalsha", "+script|load", "+exists", "+type", "+pttl", "+pexpire", "+strlen", "+get", "+hmget",
    "+unlink", "+sscan", "+srem",
)  # fmt: skip
#: Not needed, but a run that knows since when a key was not used need not wait to look at it again.
FOR_IDLE_TIMES = ("+object|idletime", "+object|encoding")
#: Besides, with a database: the rules read access logs, and thresholds are compared with what Redis says of itself.
FOR_RULES = ("+lrange", "+info")
#: Besides, where no database stands behind Redis: to judge sessions by their content, and for the lock.
WITHOUT_DATABASE = ("+hget", "+set", "+scard")
#: Besides, in a cluster.
IN_CLUSTER = ("+cluster|slots", "+asking")


def key_patterns(keys: RedisKeys) -> list[str]:
    """The keys of a policy, as ACL SETUSER takes them."""
    templates = [template for template in (keys.session, keys.user_index, keys.access_log) if template]
    named = [template.replace("{id}", "*").replace("{user}", "*") for template in templates]
    return [f"~{pattern}" for pattern in [*named, "session-policy:lock:*"]]
