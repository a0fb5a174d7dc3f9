"""Kopf's settings that differ from its defaults, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator

import kopf

from controller.api.kube import PAGE_SIZE
from policy.names import POLICY_LABEL


class Backoffs:
    """Delays between attempts of a request, in seconds: growing, then steady, never ending.

    Kopf ends the process when its delays are used up. An API server that is away for an hour is no reason for that.
    """

    def __iter__(self) -> Iterator[float]:
        """Start from the first delay for each request."""
        delay = 0.5
        while True:
            yield delay
            delay = min(delay * 2, 15.0)


def kopf_settings() -> kopf.OperatorSettings:
    """Make the settings."""
    settings = kopf.OperatorSettings()
    # Events are posted by this controller itself, through the same client and its time-outs.
    settings.posting.enabled = False
    # Without watching CRDs and namespaces, the operator needs no rights on them. It waits for its CRD before it starts.
    settings.scanning.disabled = True
    # A Lease decides before Kopf starts which of several replicas works (`leader_election`). Kopf's own peering would
    # need a resource of its own, and only pauses the watches.
    settings.peering.standalone = True
    # The default of five minutes would hide an API server that hangs.
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = Backoffs()
    # A watch that gets nothing for this long, not even a bookmark, is dead; stated because outcomes rely on it.
    settings.watching.inactivity_timeout = 70
    # Filtered by the server: foreign Jobs and Pods never reach this process.
    for resource in (("batch", "cronjobs"), ("batch", "jobs"), ("", "pods")):
        settings.watching.label_selectors[resource] = POLICY_LABEL
    # A page is held in memory several times over while it is read, and what that took is hardly given back: with pages
    # of 500, the process stays a third larger.
    settings.watching.chunk_size = PAGE_SIZE
    # process.ultimate_exiting_timeout stays unset: Kopf ignores it in an operator that is stopped by a flag. The hard
    # end is in `main`.
    return settings
