"""A real Kubernetes control plane without nodes: etcd, kube-apiserver and kube-controller-manager.

The programs are found as envtest finds them: in KUBEBUILDER_ASSETS, by default /usr/local/kubebuilder/bin,
then on PATH. Pods are stored but never run: a test plays the kubelet and writes their status.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from job.demo.servers.watchdog import Watchdog
from tests.support import audit
from tests.support.patience import PATIENCE_SECONDS
from tests.support.pki import CertificateAuthority, write_signing_key_pair
from tests.support.ports import free_port

DEFAULT_ASSETS = "/usr/local/kubebuilder/bin"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")
HOST = "127.0.0.1"


class ControlPlaneUnavailable(Exception):
    """A program is missing; the message says which, and where it was looked for."""


class ControlPlaneError(Exception):
    """A component did not come up; the message holds the end of its log."""


def find_programs() -> dict[str, str]:
    """Paths of the control plane's programs.

    Raises:
        ControlPlaneUnavailable: One is missing.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS", DEFAULT_ASSETS)
    path = os.pathsep.join([assets, os.environ.get("PATH", os.defpath)])
    found = {name: shutil.which(name, path=path) for name in PROGRAMS}
    missing = [name for name, program in found.items() if program is None]
    if missing:
        raise ControlPlaneUnavailable(
            f"no {', '.join(missing)} in {assets} or on PATH: control plane tests skipped "
            "(setup-envtest has etcd and kube-apiserver; take kube-controller-manager from the same "
            "Kubernetes release, and set KUBEBUILDER_ASSETS)"
        )
    return {name: program for name, program in found.items() if program is not None}


@dataclass
class ControlPlane:
    """The running control plane; use `ControlPlane.start()`.

    Attributes:
        is_shared: another process has started it, or uses it too: nothing of it may be started, stopped or frozen.
    """

    directory: Path
    programs: dict[str, str]
    api_port: int
    etcd_port: int
    is_shared: bool = False
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _watchdogs: dict[str, Watchdog] = field(default_factory=dict)

    @classmethod
    def start(cls) -> ControlPlane:
        """Start all components on free ports and wait until they are ready.

        Raises:
            ControlPlaneUnavailable: A program is missing.
            ControlPlaneError: A component did not come up.
        """
        programs = find_programs()
        directory = Path(tempfile.mkdtemp(prefix="control-plane-"))
        plane = cls(directory, programs, api_port=free_port(), etcd_port=free_port())
        atexit.register(plane.stop)
        try:
            plane._write_credentials()
            (directory / "audit-policy.yaml").write_text(yaml.safe_dump(audit.POLICY))
            plane._start_etcd()
            plane.start_api_server()
            plane.start_controller_manager()
            plane._await(plane._default_service_account_exists, "kube-controller-manager")
        except BaseException:
            plane.stop()
            raise
        return plane

    @classmethod
    def shared(cls, directory: Path, *, api_port: int, etcd_port: int) -> ControlPlane:
        """One that is running already, and is others' too."""
        return cls(directory, {}, api_port, etcd_port, is_shared=True)

    @property
    def url(self) -> str:
        """The API server's URL."""
        return f"https://{HOST}:{self.api_port}"

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig with all rights."""
        return self.directory / "admin.kubeconfig"

    @property
    def audit_log(self) -> audit.AuditLog:
        """What the API server was asked."""
        return audit.AuditLog(self.directory / "audit.log")

    def stop(self) -> None:
        """End everything and remove it."""
        atexit.unregister(self.stop)
        for name in reversed(list(self._processes)):
            self._end(name, signal.SIGKILL)  # nothing here is worth keeping
        shutil.rmtree(self.directory, ignore_errors=True)

    def start_api_server(self) -> None:
        """Start the API server on its port, and wait until it is ready."""
        pki = self.directory / "pki"
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers=http://{HOST}:{self.etcd_port}",
            f"--bind-address={HOST}",
            f"--advertise-address={HOST}",
            f"--secure-port={self.api_port}",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--cert-dir={pki}",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/sa.pub",
            f"--service-account-signing-key-file={pki}/sa.key",
            "--authorization-mode=RBAC",
            f"--audit-policy-file={self.directory}/audit-policy.yaml",
            f"--audit-log-path={self.directory}/audit.log",
        )
        self._await(self.api_server_ready, "kube-apiserver")

    def stop_api_server(self) -> None:
        """End the API server in order: open watches are closed."""
        self._end("kube-apiserver", signal.SIGTERM)

    def kill_api_server(self) -> None:
        """End the API server as a crash would; what it had stored stays in etcd."""
        self._end("kube-apiserver", signal.SIGKILL)

    def restart_api_server(self) -> None:
        """Stop the API server if it runs, and start it on the same port."""
        self.stop_api_server()
        self.start_api_server()

    def pause_api_server(self) -> None:
        """Freeze the API server: it accepts connections and answers nothing."""
        self._must_be_own()
        self._processes["kube-apiserver"].send_signal(signal.SIGSTOP)

    def resume_api_server(self) -> None:
        """Let a frozen API server go on."""
        self._processes["kube-apiserver"].send_signal(signal.SIGCONT)

    def start_controller_manager(self) -> None:
        """Start the controller manager: Jobs, CronJobs, garbage collection, service accounts."""
        pki = self.directory / "pki"
        self._spawn(
            "kube-controller-manager",
            f"--kubeconfig={self.directory}/kube-controller-manager.kubeconfig",
            f"--service-account-private-key-file={pki}/sa.key",
            f"--root-ca-file={pki}/ca.crt",
            "--use-service-account-credentials",
            "--leader-elect=false",
            f"--bind-address={HOST}",
            f"--secure-port={free_port()}",
        )

    def stop_controller_manager(self) -> None:
        """End the controller manager: nothing is scheduled or collected from now on."""
        self._end("kube-controller-manager", signal.SIGTERM)

    def api_server_ready(self) -> bool:
        """Whether the API server says it is ready."""
        return self._get("/readyz") is not None

    def log_tail(self, name: str) -> str:
        """The end of a component's log."""
        path = self.directory / f"{name}.log"
        return path.read_bytes()[-3000:].decode(errors="replace") if path.exists() else ""

    def _start_etcd(self) -> None:
        peer = free_port()
        client_url, peer_url = f"http://{HOST}:{self.etcd_port}", f"http://{HOST}:{peer}"
        self._spawn(
            "etcd",
            f"--data-dir={self.directory}/etcd",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            "--unsafe-no-fsync",
        )
        self._await(lambda: _answers(f"{client_url}/health"), "etcd")

    def _write_credentials(self) -> None:
        pki = self.directory / "pki"
        pki.mkdir()
        authority = CertificateAuthority(pki)
        authority.issue_server("apiserver", dns=["localhost", "kubernetes.default.svc"], addresses=[HOST])
        authority.issue_client("admin", user="admin", group="system:masters")
        authority.issue_client("kube-controller-manager", user="system:kube-controller-manager")
        write_signing_key_pair(pki, "sa")
        for user in ("admin", "kube-controller-manager"):
            (self.directory / f"{user}.kubeconfig").write_text(yaml.safe_dump(self._kubeconfig_of(user)))

    def _kubeconfig_of(self, user: str) -> dict[str, object]:
        pki = self.directory / "pki"
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": self.url, "certificate-authority": str(pki / "ca.crt")},
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate": str(pki / f"{user}.crt"),
                        "client-key": str(pki / f"{user}.key"),
                    },
                }
            ],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        }

    def _must_be_own(self) -> None:
        if self.is_shared:
            raise ControlPlaneError("other tests use this control plane now; ask for the fixture own_control_plane")

    def _spawn(self, name: str, *arguments: str) -> None:
        self._must_be_own()
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = process = subprocess.Popen(
                [self.programs[name], *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,
            )
        self._watchdogs[name] = Watchdog(process.pid, signal.SIGKILL, self.directory)

    def _end(self, name: str, how: signal.Signals) -> None:
        self._must_be_own()
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._watchdogs.pop(name).release()

    def _await(self, ready: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not ready():
            code = self._processes[name].poll()
            if code is not None or time.monotonic() > deadline:
                what = f"ended with code {code}" if code is not None else f"not ready in {PATIENCE_SECONDS:g} s"
                raise ControlPlaneError(f"{name} {what}:\n{self.log_tail(name)}")
            time.sleep(0.1)

    def _default_service_account_exists(self) -> bool:
        return self._get("/api/v1/namespaces/default/serviceaccounts/default") is not None

    def _get(self, path: str) -> bytes | None:
        pki = self.directory / "pki"
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        try:
            with urllib.request.urlopen(self.url + path, timeout=5, context=context) as response:
                body: bytes = response.read()
                return body
        except (urllib.error.URLError, OSError):
            return None


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False
