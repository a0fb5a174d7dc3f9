"""ACL permissions that the Redis user needs. Documentation and error messages list these; a test checks each."""

from __future__ import annotations

from policy.mapping import RedisKeys

#: Always needed, in the syntax of ACL SETUSER.
PERMISSIONS = (
    "+scan", "+time", "+evalsha", "+script|load", "+exists", "+type", "+pttl", "+pexpire", "+strlen", "+get", "+hmget",
    "+unlink", "+sscan", "+srem",
)  # fmt: skip
#: Optional: with idle times known, a run need not wait for sync.graceSeconds.
FOR_IDLE_TIMES = ("+object|idletime", "+object|encoding")
#: Also needed with a database: rules read access logs (LRANGE), alert thresholds are compared with INFO.
FOR_RULES = ("+lrange", "+info")
#: Also needed without a database: to read session content and for the lock.
WITHOUT_DATABASE = ("+hget", "+set", "+scard")
#: Also needed in a cluster.
IN_CLUSTER = ("+cluster|slots", "+asking")


def key_patterns(keys: RedisKeys) -> list[str]:
    """Key patterns of a policy, in the syntax of ACL SETUSER."""
    templates = [template for template in (keys.session, keys.user_index, keys.access_log) if template]
    named = [template.replace("{id}", "*").replace("{user}", "*") for template in templates]
    return [f"~{pattern}" for pattern in [*named, "session-policy:lock:*"]]
