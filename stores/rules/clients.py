"""Clients (user agents, devices) sorted into few kinds, so that what is kept about them stays small."""

from __future__ import annotations

import re
from functools import lru_cache

UNKNOWN = "Unknown"
OTHER = "Other"

FAMILIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Bot", ("bot", "crawler", "spider")),
    ("Edge", ("edg/", "edga/", "edgios/", "edge/")),
    ("Opera", ("opr/", "opera")),
    ("Samsung Internet", ("samsungbrowser",)),
    ("Firefox", ("firefox", "fxios")),
    ("Chrome", ("chrome", "chromium", "crios")),
    ("Safari", ("safari",)),
    ("Mobile app", ("okhttp", "cfnetwork", "dart/", "android", "iphone", "ipad", "ios")),
    ("Program", ("curl", "wget", "python", "java/", "go-http", "axios", "node", "postman")),
)
"""A kind of client, and what its name contains in lower case. The first that fits counts: browsers name each other."""

_PLATFORMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("iOS", ("iphone", "ipad", "ios")),
    ("Android", ("android",)),
    ("Windows", ("windows",)),
    ("ChromeOS", ("cros ",)),
    ("macOS", ("mac os", "macintosh")),
    ("Linux", ("linux",)),
)
# Sessions are many, their clients few.
_REMEMBERED = 4096
_VERSION = re.compile(r"[\d.]+")


def family(client: str | None) -> str:
    """The kind of a client."""
    return _first(FAMILIES, client.lower()) or OTHER if client else UNKNOWN


@lru_cache(maxsize=_REMEMBERED)
def signature(client: str) -> tuple[str, str]:
    """What stays the same of a client when it is updated: its kind and platform, or its name without numbers."""
    name = client.lower()
    kind, platform = _first(FAMILIES, name), _first(_PLATFORMS, name)
    if kind and platform:
        return kind, platform
    return " ".join(_VERSION.sub("", name).split()), ""


def _first(table: tuple[tuple[str, tuple[str, ...]], ...], name: str) -> str | None:
    return next((kind for kind, parts in table if any(part in name for part in parts)), None)
