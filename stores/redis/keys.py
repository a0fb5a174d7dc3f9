"""Redis key templates: from a session or user id to its key, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from policy.mapping import RedisKeys
from stores.model.errors import ConfigurationError

#: Prefix of our own keys; they are never session keys, whatever the templates say.
LOCK_PREFIX = b"session-policy:lock:"

_GLOB_CHARACTERS = b"\\*?[]"


def encoded(name: str) -> bytes:
    """An id as bytes, as in keys and index entries.

    A string that UTF-8 cannot encode (a lone surrogate) becomes bytes that no other string has.
    """
    return name.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """A key template with one placeholder.

    Attributes:
        prefix: what comes before the placeholder.
        suffix: what comes after it.
    """

    prefix: bytes
    suffix: bytes

    @classmethod
    def parse(cls, template: str, placeholder: str) -> Self:
        """Parses a template such as ``sess:{id}``, which holds the placeholder exactly once."""
        prefix, suffix = template.split(placeholder)
        return cls(prefix.encode(), suffix.encode())

    def key(self, name: str) -> bytes:
        """The key of this name."""
        return self.prefix + encoded(name) + self.suffix

    def keys(self, names: Iterable[str]) -> list[bytes]:
        """The keys of these names."""
        prefix, suffix = self.prefix, self.suffix
        return [prefix + encoded(name) + suffix for name in names]

    def names(self, keys: Sequence[bytes]) -> list[str]:
        """The names in these keys; without keys that do not match the template or are not UTF-8."""
        try:
            return [part.decode() for part in self.raw_names(keys)]
        except UnicodeDecodeError:
            return [name for key in keys if (name := self.name(key)) is not None]

    def matching(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of the keys that match the template; see :meth:`matches`."""
        prefix, suffix, fixed = self.prefix, self.suffix, len(self.prefix) + len(self.suffix)
        return [key for key in keys if key.startswith(prefix) and key.endswith(suffix) and len(key) > fixed]

    def readable(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of the keys that match the template and whose name is UTF-8."""
        ours = self.matching(keys)
        try:
            b"\n".join(ours).decode()
        except UnicodeDecodeError:
            return [key for key in ours if self.name(key) is not None]
        return ours

    def raw_names(self, keys: Iterable[bytes]) -> list[bytes]:
        """The names in these keys, as bytes; without keys that do not match the template."""
        start, end = len(self.prefix), -len(self.suffix) or None
        return [key[start:end] for key in self.matching(keys)]

    def name(self, key: bytes) -> str | None:
        """The name in a key; None if the key does not match the template or is not UTF-8."""
        if not self.matches(key):
            return None
        try:
            return key[len(self.prefix) : len(key) - len(self.suffix)].decode()
        except UnicodeDecodeError:
            return None

    def matches(self, key: bytes) -> bool:
        """Whether the key has this prefix and suffix and a name that is not empty."""
        # The prefix first: it decides for most keys, and this is called for every key.
        return key.startswith(self.prefix) and key.endswith(self.suffix) and len(key) > len(self.prefix + self.suffix)

    def covers(self, other: KeyTemplate) -> bool:
        """Whether every key of the other template matches this one, too."""
        return other.prefix.startswith(self.prefix) and other.suffix.endswith(self.suffix)

    def is_disjoint_from(self, other: KeyTemplate) -> bool:
        """Whether no key can match both templates."""
        ours, theirs = self.prefix, other.prefix
        if not (ours.startswith(theirs) or theirs.startswith(ours)):
            return True
        return not (self.suffix.endswith(other.suffix) or other.suffix.endswith(self.suffix))

    @property
    def pattern(self) -> bytes:
        """The glob pattern for SCAN. It may match a few more keys than :meth:`matches`, never fewer."""
        return _escape(self.prefix) + b"*" + _escape(self.suffix)


def pattern_for(templates: Sequence[KeyTemplate]) -> bytes:
    """One glob pattern for SCAN that matches the keys of all the templates, and as few others as possible."""
    if len(templates) == 1:
        return templates[0].pattern
    prefixes = zip(*(template.prefix for template in templates), strict=False)
    suffixes = zip(*(template.suffix[::-1] for template in templates), strict=False)
    return (
        b"".join(map(_character_class, prefixes))
        + b"*"
        + b"".join([_character_class(position) for position in suffixes][::-1])
    )


def _character_class(characters: Iterable[int]) -> bytes:
    different = sorted(set(characters))
    if len(different) == 1:
        return _escape(bytes(different))
    return b"[" + b"".join(b"\\" + bytes([c]) for c in different) + b"]"


def _escape(text: bytes) -> bytes:
    return b"".join(b"\\" + bytes([c]) if c in _GLOB_CHARACTERS else bytes([c]) for c in text)


@dataclass(frozen=True)
class KeyNames:
    """The key templates of a policy. A key that also matches userIndex or accessLog is not a session key.

    Attributes:
        session: template of session keys.
        user_index: template of the sets with a user's session ids; None if there are none.
        access_log: template of the lists with a session's accesses; None if there are none.
    """

    session: KeyTemplate
    user_index: KeyTemplate | None
    access_log: KeyTemplate | None

    @classmethod
    def parse(cls, keys: RedisKeys) -> Self:
        """Parses stores.redis.keys of a policy.

        Raises:
            ConfigurationError: every session key would match another template as well.
        """
        names = cls(
            session=KeyTemplate.parse(keys.session, "{id}"),
            user_index=KeyTemplate.parse(keys.user_index, "{user}") if keys.user_index else None,
            access_log=KeyTemplate.parse(keys.access_log, "{id}") if keys.access_log else None,
        )
        for field, other in (("userIndex", names.user_index), ("accessLog", names.access_log)):
            if other is not None and other.covers(names.session):
                raise ConfigurationError(
                    f"stores.redis.keys: every session key also matches {field}; "
                    "use templates with different prefixes or suffixes"
                )
        return names

    def session_key(self, session_id: str) -> bytes | None:
        """The session's key; None if that key would be an index or an access log."""
        key = self.session.key(session_id)
        return None if not session_id or self._is_other(key) else key

    def session_keys(self, ids: Iterable[str]) -> dict[str, bytes]:
        """Session keys by session id; without ids for which :meth:`session_key` is None."""
        named = [i for i in ids if i]
        keys = zip(named, self.session.keys(named), strict=True)
        return dict(keys) if self._session_keys_unambiguous else {i: key for i, key in keys if not self._is_other(key)}

    def session_keys_of(self, raw_ids: Iterable[bytes]) -> dict[bytes, bytes]:
        """Raw ids by session key; without ids for which :meth:`session_key` is None."""
        prefix, suffix = self.session.prefix, self.session.suffix
        keys = {prefix + i + suffix: i for i in raw_ids if i}
        return (
            keys if self._session_keys_unambiguous else {key: i for key, i in keys.items() if not self._is_other(key)}
        )

    def session_id(self, key: bytes) -> str | None:
        """The session id in a key; None if it is not a session key or not UTF-8."""
        return None if self._is_other(key) else self.session.name(key)

    def session_ids(self, keys: Sequence[bytes]) -> list[str]:
        """The session ids in these keys; without keys that are not session keys or not UTF-8."""
        return self.session.names(self._without_others(keys))

    def session_keys_in(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of the keys that are session keys by name, whatever the id's encoding."""
        return self.session.matching(self._without_others(keys))

    def access_log_key(self, session_id: str) -> bytes | None:
        """Key of the session's access log; None if the policy has none, or if that key would be an index."""
        if self.access_log is None or not session_id:
            return None
        key = self.access_log.key(session_id)
        return None if self._is_index(key) else key

    def access_log_session_id(self, key: bytes) -> str | None:
        """The session id in an access log's key; None if the key is not an access log, or is an index."""
        return None if self.access_log is None or self._is_index(key) else self.access_log.name(key)

    def access_log_keys(self, ids: Iterable[str]) -> dict[str, bytes]:
        """Access log keys by session id; without ids for which :meth:`access_log_key` is None."""
        if self.access_log is None:
            return {}
        named = [i for i in ids if i]
        keys = zip(named, self.access_log.keys(named), strict=True)
        return dict(keys) if self._access_logs_unambiguous else {i: key for i, key in keys if not self._is_index(key)}

    def access_log_session_ids(self, keys: Sequence[bytes]) -> list[bytes]:
        """The raw session ids in these access log keys; without keys that are not access logs."""
        if self.access_log is None:
            return []
        candidates = keys if self._access_logs_unambiguous else [key for key in keys if not self._is_index(key)]
        return self.access_log.raw_names(candidates)

    def user_index_key(self, user_id: str) -> bytes | None:
        """Key of the user's index; None if the policy has no indexes."""
        return None if self.user_index is None or not user_id else self.user_index.key(user_id)

    @cached_property
    def _session_keys_unambiguous(self) -> bool:
        """Whether no session key can match another template: then keys need not be checked one by one."""
        others = (KeyTemplate(LOCK_PREFIX, b""), self.user_index, self.access_log)
        return all(other is None or self.session.is_disjoint_from(other) for other in others)

    @cached_property
    def _access_logs_unambiguous(self) -> bool:
        """Whether no access log key can match the user index as well."""
        log, index = self.access_log, self.user_index
        return log is None or index is None or log.is_disjoint_from(index)

    def is_access_log(self, key: bytes) -> bool:
        """Whether the key is an access log by name."""
        return self.access_log is not None and self.access_log.matches(key)

    def _without_others(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        return keys if self._session_keys_unambiguous else [key for key in keys if not self._is_other(key)]

    def _is_other(self, key: bytes) -> bool:
        if key.startswith(LOCK_PREFIX):
            return True
        return self.is_access_log(key) or self._is_index(key)

    def _is_index(self, key: bytes) -> bool:
        return self.user_index is not None and self.user_index.matches(key)
