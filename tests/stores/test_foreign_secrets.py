"""A policy may name any key of any Secret of its namespace, also one that holds something else altogether.

Whoever may write policies need not be allowed to read Secrets: no part of such a value may show in what a run says.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from policy.names import (
    ALERT_OPERATIONS_URLS_ENV,
    ALERT_SECURITY_URLS_ENV,
    DATABASE_URL_ENV,
    LOG_HASH_KEY_ENV,
    REDIS_URL_ENV,
)
from policy.report import RunReport
from tests.support.runs import KEYS, SECRET, manifest
from tests.support.session_stores import SessionStores

CANARY = "canary"

_LINES = "\n".join(f"{CANARY}{n:02}" + "A" * 56 for n in range(4))
_BASIC = base64.b64encode(f"{CANARY}:{CANARY}".encode()).decode()

SECRETS = {
    "token": f"{CANARY}0123456789",
    "blank-separated": f"  {CANARY} {CANARY}=1\n",
    "binary": f"\x01{CANARY}\x7f\udcff",
    "TLS key": f"-----BEGIN PRIVATE KEY-----\n{_LINES}\n-----END PRIVATE KEY-----\n",
    "JWT": f"{CANARY}.{CANARY}.{CANARY}",
    "docker config": json.dumps({"auths": {f"{CANARY}.example": {"username": CANARY, "auth": _BASIC}}}),
    "login": f"{CANARY}:{CANARY}@{CANARY}",
    "scheme": f"{CANARY}://{CANARY}",
    "driver": f"postgresql+{CANARY}://{CANARY}@127.0.0.1/{CANARY}",
    "web": f"https://{CANARY}:{CANARY}@127.0.0.1:1/{CANARY}?{CANARY}={CANARY}#{CANARY}",
    "unescaped password": f"postgresql://u:p@{CANARY}/{CANARY}@127.0.0.1:1/{CANARY}",
    "host": f"postgresql://{CANARY}.invalid/{CANARY}",
    "port": f"postgresql://127.0.0.1:{CANARY}/db",
    "PostgreSQL option": f"postgresql://127.0.0.1:1/db?{CANARY}={CANARY}",
    "PostgreSQL file": f"postgresql://127.0.0.1:1/db?sslmode=verify-ca&sslrootcert=/{CANARY}&passfile=/{CANARY}",
    "PostgreSQL service": f"postgresql:///?service={CANARY}",
    "PostgreSQL hosts": f"postgresql:///{CANARY}?host=/{CANARY}&port={CANARY}",
    "MySQL host": f"mysql://{CANARY}:{CANARY}@{CANARY}.invalid/{CANARY}",
    "MySQL option": f"mysql://127.0.0.1:1/db?{CANARY}={CANARY}",
    "MySQL file": f"mysql://127.0.0.1:1/db?ssl_ca=/{CANARY}",
    "MySQL socket": f"mysql:///db?unix_socket=/{CANARY}",
    "SQLite file": f"sqlite:////{CANARY}/{CANARY}",
    "SQLite option": f"sqlite:////dev/null?{CANARY}={CANARY}",
    "SQLite driver": f"sqlite:////dev/null?uri=true&vfs={CANARY}",
    "Redis host": f"redis://{CANARY}:{CANARY}@{CANARY}.invalid/0",
    "Redis unescaped password": f"redis://:p@{CANARY}/{CANARY}@127.0.0.1:1/0",
    "Redis database": f"redis://127.0.0.1:1/{CANARY}",
    "Redis option": f"redis://127.0.0.1:1/0?{CANARY}={CANARY}",
    "Redis file": f"rediss://127.0.0.1:1/0?ssl_ca_certs=/{CANARY}",
    "Redis TLS": f"rediss://127.0.0.1:1/0?ssl_cert_reqs={CANARY}",
    "Redis socket": f"unix:///{CANARY}",
    "hosts": f"redis://{CANARY}-0.invalid,{CANARY}-1.invalid:{CANARY}",
    "IPv6": f"redis://[{CANARY}]:1",
    "mail": f"mailtos://{CANARY}:{CANARY}@127.0.0.1:1/?smtp=127.0.0.1&to={CANARY}@{CANARY}.invalid",
    "Slack": f"slack://{CANARY}/{CANARY}/{CANARY}",
    "web hook": f"json://{CANARY}:{CANARY}@127.0.0.1:1/{CANARY}?+{CANARY}={CANARY}",
}


# The command line as it is, once for each Secret in one process: starting one for each would take minutes.
_RUN_EACH = """
import functools, json, os, pathlib, sys
import job.cli.main, job.cli.run as cli
variables, secrets, policy, message = json.load(sys.stdin)
write = cli.write_termination_message
cli.write_termination_message = functools.partial(write, path=pathlib.Path(message))
for name, secret in secrets.items():
    os.environ.update(dict.fromkeys(variables, secret))
    pathlib.Path(message).write_text("")
    for stream in (sys.stdout, sys.stderr):
        print(f"--- {name}", file=stream, flush=True)
    code = job.cli.main.main.main(["run", "-f", policy], standalone_mode=False)
    print("+++", json.dumps([code, pathlib.Path(message).read_text()]), flush=True)
"""


def run_with_each(
    directory: Path, variables: list[str], document: Mapping[str, Any], **environment: str
) -> dict[str, tuple[int, RunReport, str]]:
    """Runs the policy with each of the Secrets: exit code, report, and all that was said."""
    policy = directory / "policy.yaml"
    policy.write_text(json.dumps(document))
    ended = subprocess.run(
        [sys.executable, "-W", "always", "-c", _RUN_EACH],
        input=json.dumps([variables, SECRETS, str(policy), str(directory / "termination-log")]),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    stdout, stderr = _by_secret(ended.stdout), _by_secret(ended.stderr)
    assert stdout.keys() == stderr.keys() == SECRETS.keys()
    results = {}
    for name, said in stdout.items():
        exit_code, message = json.loads(said.rpartition("+++")[2])
        results[name] = (exit_code, RunReport.model_validate_json(message), said + stderr[name])
    return results


def _by_secret(text: str) -> dict[str, str]:
    parts = [part.partition("\n") for part in text.split("--- ")[1:]]
    return {name: said for name, _, said in parts}


def check(results: Mapping[str, tuple[int, RunReport, str]], *expected_exit_codes: int) -> None:
    echoed = [name for name, (_, _, said) in results.items() if CANARY in said.lower() or _BASIC in said]
    assert echoed == []
    unexpected = {
        name: (code, report) for name, (code, report, _) in results.items() if code not in expected_exit_codes
    }
    assert unexpected == {}


AT_ONCE = {name: {"attempts": 0, "delaySeconds": 0} for name in ("database", "redis", "deletion")}


def test_as_database_url(tmp_path: Path) -> None:
    check(run_with_each(tmp_path, [DATABASE_URL_ENV], manifest(retries=AT_ONCE)), 1, 2)


@pytest.mark.representative(mode=["Standalone"])
@pytest.mark.parametrize("mode", ["Standalone", "Sentinel", "Cluster"])
def test_as_redis_url(tmp_path: Path, mode: str) -> None:
    redis = {"urlFrom": SECRET, "keys": KEYS, "mode": mode}
    document = manifest(retries=AT_ONCE)
    document["spec"]["stores"] = {"redis": redis | ({"sentinelMaster": "main"} if mode == "Sentinel" else {})}
    check(run_with_each(tmp_path, [REDIS_URL_ENV], document), 1, 2)


@pytest.mark.exhaustive
def test_as_alert_urls_and_as_hash_key(tmp_path: Path, sqlite_url: str) -> None:
    stores = SessionStores(sqlite_url)
    stores.add("short id", used=0)
    stores.close()
    # Something to tell each audience, with every run.
    document = manifest(
        rules=[{"type": "WeakId"}], alerts={"repeatAfterSeconds": 0, "thresholds": {"activeSessions": 1}}
    )
    variables = [ALERT_OPERATIONS_URLS_ENV, ALERT_SECURITY_URLS_ENV, LOG_HASH_KEY_ENV]
    results = run_with_each(tmp_path, variables, document, **{DATABASE_URL_ENV: sqlite_url})
    check(results, 0)
    for name, (_, _, said) in results.items():
        assert said.count('"alert not sent"') >= len(SECRETS[name].split()[:20]), name
        assert '"abnormal session"' in said
