"""Names of Redis keys: from an id to its key, and from a key back to the id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from policy.stores import RedisKeys
from stores.model.errors import ConfigurationError

#: Keys of ours, which are nobody's session whatever the templates say.
LOCK_PREFIX = b"session-policy:lock:"

_GLOB_CHARACTERS = b"\\*?[]"


def encoded(name: str) -> bytes:
    """An id or a user's name as keys and index entries spell it.

    A text that UTF-8 cannot write (a lone surrogate) becomes bytes that no other text has.
    """
    return name.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """A key with one variable part.

    Attributes:
        prefix: what comes before the variable part.
        suffix: what comes after it.
    """

    prefix: bytes
    suffix: bytes

    @classmethod
    def parse(cls, template: str, placeholder: str) -> Self:
        """The template in a text such as ``sess:{id}``, which holds the placeholder exactly once."""
        prefix, suffix = template.split(placeholder)
        return cls(prefix.encode(), suffix.encode())

    def key(self, name: str) -> bytes:
        """The key with this variable part."""
        return self.prefix + encoded(name) + self.suffix

    def keys(self, names: Iterable[str]) -> list[bytes]:
        """The keys with these variable parts."""
        prefix, suffix = self.prefix, self.suffix
        return [prefix + encoded(name) + suffix for name in names]

    def names(self, keys: Sequence[bytes]) -> list[str]:
        """The variable parts of keys; those that are not of this template, or not UTF-8, are left out."""
        try:
            return [part.decode() for part in self.parts(keys)]
        except UnicodeDecodeError:
            return [name for key in keys if (name := self.name(key)) is not None]

    def matching(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of the keys that are of this template; see :meth:`matches`."""
        prefix, suffix, fixed = self.prefix, self.suffix, len(self.prefix) + len(self.suffix)
        return [key for key in keys if key.startswith(prefix) and key.endswith(suffix) and len(key) > fixed]

    def readable(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of the keys that are of this template, and whose variable part is UTF-8."""
        ours = self.matching(keys)
        try:
            b"\n".join(ours).decode()
        except UnicodeDecodeError:
            return [key for key in ours if self.name(key) is not None]
        return ours

    def parts(self, keys: Iterable[bytes]) -> list[bytes]:
        """The variable parts of keys as they are written; those that are not of this template are left out."""
        start, end = len(self.prefix), -len(self.suffix) or None
        return [key[start:end] for key in self.matching(keys)]

    def name(self, key: bytes) -> str | None:
        """The variable part of a key; None if the key is not of this template, or not UTF-8."""
        if not self.matches(key):
            return None
        try:
            return key[len(self.prefix) : len(key) - len(self.suffix)].decode()
        except UnicodeDecodeError:
            return None

    def matches(self, key: bytes) -> bool:
        """Whether the key has this template's shape, with a variable part that is not empty."""
        # The prefix first: it alone tells most keys apart, and this is asked of every key there is.
        return key.startswith(self.prefix) and key.endswith(self.suffix) and len(key) > len(self.prefix + self.suffix)

    def covers(self, other: KeyTemplate) -> bool:
        """Whether every key of the other template is one of this, too."""
        return other.prefix.startswith(self.prefix) and other.suffix.endswith(self.suffix)

    def is_apart_from(self, other: KeyTemplate) -> bool:
        """Whether no key can be of both templates."""
        ours, theirs = self.prefix, other.prefix
        if not (ours.startswith(theirs) or theirs.startswith(ours)):
            return True
        return not (self.suffix.endswith(other.suffix) or other.suffix.endswith(self.suffix))

    @property
    def pattern(self) -> bytes:
        """The glob pattern for SCAN. It may find a few more keys than :meth:`matches`, never fewer."""
        return _escape(self.prefix) + b"*" + _escape(self.suffix)


def pattern_for(templates: Sequence[KeyTemplate]) -> bytes:
    """One glob pattern for SCAN that finds every key of all the templates, and as few others as such a pattern can."""
    if len(templates) == 1:
        return templates[0].pattern
    prefixes = zip(*(template.prefix for template in templates), strict=False)
    suffixes = zip(*(template.suffix[::-1] for template in templates), strict=False)
    return b"".join(map(_one_of, prefixes)) + b"*" + b"".join([_one_of(place) for place in suffixes][::-1])


def _one_of(characters: Iterable[int]) -> bytes:
    different = sorted(set(characters))
    if len(different) == 1:
        return _escape(bytes(different))
    return b"[" + b"".join(b"\\" + bytes([c]) for c in different) + b"]"


def _escape(text: bytes) -> bytes:
    return b"".join(b"\\" + bytes([c]) if c in _GLOB_CHARACTERS else bytes([c]) for c in text)


@dataclass(frozen=True)
class KeyNames:
    """All templates of a policy. A key that fits userIndex or accessLog as well is no session key.

    Attributes:
        session: key of a session.
        user_index: key of the set of a user's session ids, if there are such sets.
        access_log: key of a session's access log, if there are such lists.
    """

    session: KeyTemplate
    user_index: KeyTemplate | None
    access_log: KeyTemplate | None

    @classmethod
    def parse(cls, keys: RedisKeys) -> Self:
        """The templates of a policy.

        Raises:
            ConfigurationError: no key could ever be a session's, because each would fit another template as well.
        """
        names = cls(
            session=KeyTemplate.parse(keys.session, "{id}"),
            user_index=KeyTemplate.parse(keys.user_index, "{user}") if keys.user_index else None,
            access_log=KeyTemplate.parse(keys.access_log, "{id}") if keys.access_log else None,
        )
        for field, other in (("userIndex", names.user_index), ("accessLog", names.access_log)):
            if other is not None and other.covers(names.session):
                raise ConfigurationError(
                    f"stores.redis.keys: every key of the template session fits {field} as well; "
                    "give them names that can be told apart"
                )
        return names

    def session_key(self, session_id: str) -> bytes | None:
        """The session's key; None if a key of that name would be an index or an access log."""
        key = self.session.key(session_id)
        return None if not session_id or self._is_other(key) else key

    def session_keys(self, ids: Iterable[str]) -> dict[str, bytes]:
        """The sessions' keys by their ids; without those that :meth:`session_key` refuses."""
        named = [i for i in ids if i]
        keys = zip(named, self.session.keys(named), strict=True)
        return dict(keys) if self._stands_alone else {i: key for i, key in keys if not self._is_other(key)}

    def session_keys_of(self, written: Iterable[bytes]) -> dict[bytes, bytes]:
        """Ids as they are written in keys, by their session keys; without those that :meth:`session_key` refuses."""
        prefix, suffix = self.session.prefix, self.session.suffix
        keys = {prefix + i + suffix: i for i in written if i}
        return keys if self._stands_alone else {key: i for key, i in keys.items() if not self._is_other(key)}

    def session_id(self, key: bytes) -> str | None:
        """Whose session key this is; None if it is no session key, or not UTF-8."""
        return None if self._is_other(key) else self.session.name(key)

    def session_ids(self, keys: Sequence[bytes]) -> list[str]:
        """Whose session keys these are; those that are none, or not UTF-8, are left out."""
        return self.session.names(keys if self._stands_alone else [key for key in keys if not self._is_other(key)])

    def session_keys_in(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of the keys that are named like a session's, whatever the id is spelt in."""
        return self.session.matching(keys if self._stands_alone else [key for key in keys if not self._is_other(key)])

    def access_log_key(self, session_id: str) -> bytes | None:
        """Key of the session's access log; None if there is none, or a key of that name would be an index."""
        if self.access_log is None or not session_id:
            return None
        key = self.access_log.key(session_id)
        return None if self._is_index(key) else key

    def access_log_owner(self, key: bytes) -> str | None:
        """Whose access log this key is named like; None if it is named like none, or like an index."""
        return None if self.access_log is None or self._is_index(key) else self.access_log.name(key)

    def access_log_keys(self, ids: Iterable[str]) -> dict[str, bytes]:
        """The keys of the sessions' access logs by their ids; without those that :meth:`access_log_key` refuses."""
        if self.access_log is None:
            return {}
        named = [i for i in ids if i]
        keys = zip(named, self.access_log.keys(named), strict=True)
        return dict(keys) if self._logs_stand_alone else {i: key for i, key in keys if not self._is_index(key)}

    def access_log_owners(self, keys: Sequence[bytes]) -> list[bytes]:
        """Whose access logs these keys are named like, as it is written; those of no one are left out."""
        if self.access_log is None:
            return []
        return self.access_log.parts(keys if self._logs_stand_alone else [k for k in keys if not self._is_index(k)])

    def user_index_key(self, user_id: str) -> bytes | None:
        """Key of the user's index; None if there is none."""
        return None if self.user_index is None or not user_id else self.user_index.key(user_id)

    @cached_property
    def _stands_alone(self) -> bool:
        """Whether no session key can be anything else as well: then no key has to be asked."""
        others = (KeyTemplate(LOCK_PREFIX, b""), self.user_index, self.access_log)
        return all(other is None or self.session.is_apart_from(other) for other in others)

    @cached_property
    def _logs_stand_alone(self) -> bool:
        """Whether no key of an access log can be a user's index as well."""
        log, index = self.access_log, self.user_index
        return log is None or index is None or log.is_apart_from(index)

    def is_access_log(self, key: bytes) -> bool:
        """Whether the key is named like an access log."""
        return self.access_log is not None and self.access_log.matches(key)

    def _is_other(self, key: bytes) -> bool:
        if key.startswith(LOCK_PREFIX):
            return True
        return self.is_access_log(key) or self._is_index(key)

    def _is_index(self, key: bytes) -> bool:
        return self.user_index is not None and self.user_index.matches(key)
