"""The Pod Security Standards' profile "restricted", as the Kubernetes documentation publishes it, for Linux Pods.

Written down here so that any Pod can be judged without a cluster; tests on a real API server hold it to that one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_VOLUMES = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
)
_SYSCTLS = frozenset(
    {"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"}
    | {"net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"}
    | {"net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"}
    | {"net.ipv4.tcp_keepalive_probes"}
)
_SELINUX_TYPES = frozenset({None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_SECCOMP = frozenset({"RuntimeDefault", "Localhost"})
_APPARMOR = frozenset({None, "RuntimeDefault", "Localhost"})

Spec = Mapping[str, Any]


def violations(template: Spec) -> list[str]:
    """What a Pod, or a Pod template, has that "restricted" forbids; empty if it is admitted."""
    return [*_of_pod(template["spec"]), *_of_annotations(template.get("metadata") or {})]


def _of_annotations(metadata: Spec) -> Iterator[str]:
    for key in metadata.get("annotations") or {}:
        if key.startswith(("container.apparmor.security.beta.kubernetes.io/", "seccomp.security.alpha.kubernetes.io/")):
            yield f"annotation {key}"


def _of_pod(spec: Spec) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    for volume in spec.get("volumes") or []:
        yield from (f"volume {kind}" for kind in volume.keys() - {"name"} - _VOLUMES)
    own: Spec = spec.get("securityContext") or {}
    yield from _of_context(own)
    yield from (f"sysctl {s['name']}" for s in own.get("sysctls") or [] if s["name"] not in _SYSCTLS)
    containers = [
        container
        for kind in ("initContainers", "containers", "ephemeralContainers")
        for container in spec.get(kind) or []
    ]
    for container in containers:
        yield from _of_container(container, own)


def _of_container(container: Spec, pod: Spec) -> Iterator[str]:
    own: Spec = container.get("securityContext") or {}
    yield from _of_context(own)
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if not own.get("runAsNonRoot", pod.get("runAsNonRoot")):
        yield "runAsNonRoot"
    if (own.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type") not in _SECCOMP:
        yield "seccompProfile"
    if own.get("procMount") not in (None, "Default"):
        yield "procMount"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield "capabilities.drop"
    if set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield "capabilities.add"
    yield from ("hostPort" for port in container.get("ports") or [] if port.get("hostPort"))
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield from _of_handler(container.get(name))
    for handler in (container.get("lifecycle") or {}).values():
        yield from _of_handler(handler)


def _of_handler(handler: Spec | None) -> Iterator[str]:
    for kind in ("httpGet", "tcpSocket"):
        if ((handler or {}).get(kind) or {}).get("host"):
            yield "host of a probe"


def _of_context(context: Spec) -> Iterator[str]:
    if context.get("runAsUser") == 0:
        yield "runAsUser"
    if context.get("runAsNonRoot") is False:
        yield "runAsNonRoot"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type") not in _SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions"
    if (context.get("appArmorProfile") or {}).get("type") not in _APPARMOR:
        yield "appArmorProfile"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "hostProcess"
