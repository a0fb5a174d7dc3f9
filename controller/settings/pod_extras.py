"""What the operator's administrator adds to every cleanup Pod: labels, annotations, variables, a service account.

None of it may take the place of what the operator sets itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from policy.names import (
    ALERT_OPERATIONS_URLS_ENV,
    ALERT_SECURITY_URLS_ENV,
    DATABASE_URL_ENV,
    GROUP,
    JOB_INDEX_ENV,
    LOG_DIRECTORY_ENV,
    LOG_HASH_KEY_ENV,
    REDIS_URL_ENV,
    SPEC_ENV,
)
from policy.opentelemetry_env import OPERATORS_VARIABLES

_LABELS: Final = "SESSION_POLICY_JOB_POD_LABELS"
_ANNOTATIONS: Final = "SESSION_POLICY_JOB_POD_ANNOTATIONS"
_VARIABLES: Final = "SESSION_POLICY_JOB_ENV"
_SERVICE_ACCOUNT: Final = "SESSION_POLICY_JOB_SERVICE_ACCOUNT"

_OWN_LABELS: Final = frozenset(
    {"app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/managed-by"}
    | {"job-name", "controller-uid"}  # the Job controller's
)
_OWN_PREFIXES: Final = (f"{GROUP}/", "batch.kubernetes.io/")
_OWN_VARIABLES: Final = frozenset(
    {DATABASE_URL_ENV, REDIS_URL_ENV, ALERT_OPERATIONS_URLS_ENV, ALERT_SECURITY_URLS_ENV}
    | {LOG_HASH_KEY_ENV, LOG_DIRECTORY_ENV}
    | {JOB_INDEX_ENV}  # Kubernetes' own, in an Indexed Job
    | OPERATORS_VARIABLES
)

_DNS_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
DNS_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_DNS_LABEL}(\.{_DNS_LABEL})*")
_NAME: Final = r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_KEY: Final = re.compile(rf"((?=[^/]{{1,253}}/){_DNS_LABEL}(\.{_DNS_LABEL})*/)?{_NAME}")
_LABEL_VALUE: Final = re.compile(rf"({_NAME})?")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class PodExtras:
    """Additions to every cleanup Pod.

    Attributes:
        labels: of the Pod.
        annotations: of the Pod.
        env: variables of the container, by name. Kubernetes replaces ``$(NAME)`` in a value, as in any Pod.
        service_account: name of a ServiceAccount in each policy's namespace; empty for the namespace's default. The
            Pod gets no token of it.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    service_account: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], problems: list[str]) -> PodExtras:
        """Read the ``SESSION_POLICY_JOB_*`` variables; maps are JSON objects.

        Args:
            environment: of the process.
            problems: gets a line for each variable that is wrong, or that would override what the operator sets.
        """
        labels = _texts(environment, _LABELS, problems)
        annotations = _texts(environment, _ANNOTATIONS, problems)
        env = _texts(environment, _VARIABLES, problems)
        account = environment.get(_SERVICE_ACCOUNT, "").strip()
        for name, keys in ((_LABELS, labels), (_ANNOTATIONS, annotations)):
            problems += [f"{name}: {key!r} is no valid key" for key in keys if not _KEY.fullmatch(key)]
            problems += [f"{name}: {key!r} belongs to the operator" for key in keys if _is_own_key(key)]
        problems += [
            f"{_LABELS}: the value of {key!r} is no valid label value"
            for key, value in labels.items()
            if not _LABEL_VALUE.fullmatch(value)
        ]
        problems += [f"{_VARIABLES}: {key!r} is no valid name" for key in env if not _VARIABLE.fullmatch(key)]
        problems += [f"{_VARIABLES}: {key!r} belongs to the operator" for key in env if is_own_variable(key)]
        if account and not DNS_NAME.fullmatch(account):
            problems.append(f"{_SERVICE_ACCOUNT} must be the name of a ServiceAccount, not {account!r}")
        return cls(labels, annotations, env, account)


def is_own_variable(name: str) -> bool:
    """Whether only the operator sets this variable of the container."""
    return name in _OWN_VARIABLES or name.startswith(SPEC_ENV)


def _is_own_key(key: str) -> bool:
    return key in _OWN_LABELS or key.startswith(_OWN_PREFIXES)


def _texts(environment: Mapping[str, str], name: str, problems: list[str]) -> dict[str, str]:
    text = environment.get(name, "").strip()
    if not text:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    # The value is not repeated: a variable may hold a password.
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        problems.append(f'{name} must be a JSON object of texts, such as {{"key": "value"}}')
        return {}
    return found
