"""Where the API server is, and whose word is trusted."""

from __future__ import annotations

import ssl

import pytest

from controller.api.login import LenientConnectionInfo, api_server, is_in_cluster


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("10.96.0.1", "443", "https://10.96.0.1:443"),
        ("fd00::1", "6443", "https://[fd00::1]:6443"),
    ],
)
def test_the_api_server_is_reached_without_cluster_dns(host: str, port: str, url: str) -> None:
    assert api_server({"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}) == url


def test_a_kubeconfig_goes_before_the_service_account() -> None:
    assert is_in_cluster({"KUBERNETES_SERVICE_HOST": "10.96.0.1"})
    assert not is_in_cluster({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBECONFIG": "/tmp/config"})
    assert not is_in_cluster({})


def test_an_authority_without_key_usage_is_trusted_but_nothing_else_is_relaxed() -> None:
    context = LenientConnectionInfo(server="https://10.96.0.1:443").as_ssl_context()
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
