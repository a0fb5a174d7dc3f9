"""What the operator's administrator adds to every cleanup Pod: labels, annotations, variables, a service account.

None of it may override what the operator sets itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from controller.settings.environment import PREFIX, EnvironmentSettings, InvalidVariableError, Strings
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


def _checked_annotations(values: Mapping[str, str]) -> Mapping[str, str]:
    return _unless(_key_problems(values), values)


def _checked_labels(values: Mapping[str, str]) -> Mapping[str, str]:
    wrong = [key for key, value in values.items() if not _LABEL_VALUE.fullmatch(value)]
    return _unless(_key_problems(values) + [f"the value of {key!r} is no valid label value" for key in wrong], values)


def _key_problems(values: Mapping[str, str]) -> list[str]:
    invalid = [f"{key!r} is no valid key" for key in values if not _KEY.fullmatch(key)]
    return invalid + [f"{key!r} belongs to the operator" for key in values if _is_own_key(key)]


def _checked_variables(values: Mapping[str, str]) -> Mapping[str, str]:
    invalid = [f"{name!r} is no valid name" for name in values if not _VARIABLE.fullmatch(name)]
    reserved = [f"{name!r} belongs to the operator" for name in values if is_own_variable(name)]
    return _unless(invalid + reserved, values)


def _unless(problems: list[str], values: Mapping[str, str]) -> Mapping[str, str]:
    if problems:
        raise InvalidVariableError(problems)
    return values


def _service_account(name: str) -> str:
    if name and not DNS_NAME.fullmatch(name):
        raise ValueError(f"must be the name of a ServiceAccount, not {name!r}")
    return name


class PodExtras(EnvironmentSettings):
    """Additions to every cleanup Pod: ``SESSION_POLICY_JOB_POD_*``, ``…_JOB_ENV`` and ``…_JOB_SERVICE_ACCOUNT``.

    Attributes:
        pod_labels: labels of the Pod.
        pod_annotations: annotations of the Pod.
        env: variables of the container, by name. Kubernetes replaces ``$(NAME)`` in a value, as in any Pod.
        service_account: name of a ServiceAccount in each policy's namespace; empty for the namespace's default. The
            Pod gets no token of it.
    """

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}JOB_")

    pod_labels: Annotated[Strings, AfterValidator(_checked_labels)] = Field(default_factory=dict)
    pod_annotations: Annotated[Strings, AfterValidator(_checked_annotations)] = Field(default_factory=dict)
    env: Annotated[Strings, AfterValidator(_checked_variables)] = Field(default_factory=dict)
    service_account: Annotated[str, AfterValidator(_service_account)] = ""


def is_own_variable(name: str) -> bool:
    """Whether only the operator sets this variable of the container."""
    return name in _OWN_VARIABLES or name.startswith(SPEC_ENV)


def _is_own_key(key: str) -> bool:
    return key in _OWN_LABELS or key.startswith(_OWN_PREFIXES)
