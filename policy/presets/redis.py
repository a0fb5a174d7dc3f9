"""Known applications' sessions in Redis: one entry for each."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from policy.mapping import RedisFields, RedisKeys, RedisLayout, TimeEncoding, TimeField


class RedisPreset(StrEnum):
    """A known application's keys and session content.

    Attributes:
        layout: how keys are named, and which field means what.
    """

    DEFAULT = "Default", RedisLayout(RedisKeys(), RedisFields())
    # connect-redis: index.ts. Where it sets a TTL, that is the expiry; with disableTTL only the cookie has one.
    CONNECT_REDIS = (
        "ConnectRedis",
        RedisLayout(
            RedisKeys(session="sess:{id}"),
            RedisFields(
                user_id="passport.user", expires_at=TimeField(name="cookie.expires", encoding=TimeEncoding.TIMESTAMP)
            ),
        ),
    )
    # django/contrib/sessions/backends/cache.py, cached_db.py, with no KEY_PREFIX and VERSION 1. The content is pickled.
    DJANGO_CACHE = (
        "DjangoCache",
        RedisLayout(RedisKeys(session=":1:django.contrib.sessions.cache{id}"), RedisFields()),
    )
    DJANGO_CACHED_DB = (
        "DjangoCachedDb",
        RedisLayout(RedisKeys(session=":1:django.contrib.sessions.cached_db{id}"), RedisFields()),
    )
    # spring-session-data-redis: RedisIndexedSessionRepository, namespace spring:session. The key whose end tells the
    # application of a session's goes with its session, as an access log does.
    SPRING_INDEXED = (
        "SpringIndexed",
        RedisLayout(
            RedisKeys(
                session="spring:session:sessions:{id}",
                user_index="spring:session:index:org.springframework.session.FindByIndexNameSessionRepository."
                "PRINCIPAL_NAME_INDEX_NAME:{user}",
                access_log="spring:session:sessions:expires:{id}",
            ),
            RedisFields(
                created_at=TimeField(name="creationTime", encoding=TimeEncoding.EPOCH_MILLISECONDS),
                last_accessed_at=TimeField(name="lastAccessedTime", encoding=TimeEncoding.EPOCH_MILLISECONDS),
            ),
        ),
    )

    layout: RedisLayout

    def __new__(cls, value: str, layout: RedisLayout) -> Self:
        """A member from its entry."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.layout = layout
        return member
