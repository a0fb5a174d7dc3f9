"""How both clients, Kopf's for watches and this package's for everything else, find and authenticate the API server."""

from __future__ import annotations

import dataclasses
import os
import ssl
from collections.abc import Mapping
from typing import Any

import kopf

_HOST = "KUBERNETES_SERVICE_HOST"
_PORT = "KUBERNETES_SERVICE_PORT"


def is_in_cluster(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to use the Pod's service account; KUBECONFIG, if set, wins."""
    return bool(environment.get(_HOST)) and not environment.get("KUBECONFIG")


def api_server(environment: Mapping[str, str] = os.environ) -> str:
    """URL of the API server from the variables of every Pod: an IP address, so that it needs no cluster DNS."""
    host, port = environment[_HOST], environment.get(_PORT, "443")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


class LenientConnectionInfo(kopf.ConnectionInfo):
    """Trusts the same certificate authorities as kubectl.

    Since Python 3.13, an authority without the key usage extension is refused by default. Many clusters have such a
    one. Chain, dates and host name are still verified.
    """

    def as_ssl_context(self) -> ssl.SSLContext:
        """Make an SSL context without OpenSSL's strict mode."""
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Kopf's login handler: the Pod's service account, else the kubeconfig."""
    if is_in_cluster():
        info = kopf.login_with_service_account(**kwargs)
        info = info and dataclasses.replace(info, server=api_server())
    else:
        info = kopf.login_via_client(**kwargs)
    if info is None:
        return None
    return LenientConnectionInfo(**{field.name: getattr(info, field.name) for field in dataclasses.fields(info)})
