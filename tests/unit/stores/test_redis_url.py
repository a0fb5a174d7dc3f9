"""Redis URLs for each arrangement of servers: understood, or refused in words that help and show no password."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.stores import RedisMode
from stores.model.errors import ConfigurationError
from stores.redis.connection.url import Address, parse_url

CANARY = "c4nary"


def test_r3_2_sentinels_are_named_with_both_logins() -> None:
    url = parse_url(
        "redis://app:p%40ss@a,b:7,[::1]:8/3?sentinel_username=s&sentinel_password=x%2Fy", RedisMode.SENTINEL
    )
    assert url.addresses == (Address("a", 26379), Address("b", 7), Address("::1", 8))
    assert (url.username, url.password, url.database) == ("app", "p@ss", 3)
    assert (url.sentinel_username, url.sentinel_password) == ("s", "x/y")
    assert url.tls is None


def test_r3_2_one_node_of_a_cluster_is_enough() -> None:
    url = parse_url("rediss://:pw@node", RedisMode.CLUSTER)
    assert url.addresses == (Address("node", 6379),)
    assert (url.username, url.password) == (None, "pw")
    assert url.tls == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


@pytest.mark.parametrize("mode", RedisMode)
@given(user=st.text(min_size=1), password=st.text(min_size=1))
def test_any_login_can_be_written(mode: RedisMode, user: str, password: str) -> None:
    try:
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    except UnicodeEncodeError:
        return  # a lone surrogate has no percent-encoding
    url = parse_url(f"redis://{login}@host:1/0", mode)
    assert (url.username, url.password, url.addresses) == (user, password, (Address("host", 1),))


@pytest.mark.parametrize(
    ("mode", "url", "says"),
    [
        (RedisMode.STANDALONE, f"redis://:{CANARY}@a,b/0", "has several hosts"),
        (RedisMode.STANDALONE, f"redis://:{CANARY}@a?sentinel_password={CANARY}", "unknown option"),
        (RedisMode.SENTINEL, f"unix:///run/{CANARY}", "stores.redis.mode is Sentinel"),
        (RedisMode.CLUSTER, f"unix:///run/{CANARY}", "stores.redis.mode is Cluster"),
        (RedisMode.SENTINEL, f"redis://:{CANARY}@a,,b/0", "has no host"),
        (RedisMode.SENTINEL, f"redis://:{CANARY}@a:1,b:x/0", "percent-encode"),
        (RedisMode.CLUSTER, f"redis://:{CANARY}@a,b/1", "only database 0"),
        (RedisMode.CLUSTER, f"redis://:{CANARY}@a,b?db=2", "only database 0"),
        (RedisMode.CLUSTER, f"http://:{CANARY}@a", "start with redis://"),
    ],
)
def test_what_does_not_fit_the_mode_is_refused_without_being_shown(mode: RedisMode, url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL") as caught:
        parse_url(url, mode)
    assert says in str(caught.value)
    assert CANARY not in str(caught.value)


def test_a_url_is_never_shown_by_accident() -> None:
    url = parse_url(f"redis://:{CANARY}@a/0?sentinel_password={CANARY}", RedisMode.SENTINEL)
    assert CANARY not in repr(url) + str(url)
