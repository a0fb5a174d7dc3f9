"""Limits that the operator's administrator sets to what policies may ask for.

A policy that asks for more is refused, never adjusted: what a policy says and what runs must agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator
from pydantic_settings import SettingsConfigDict

from controller.settings import container_env
from controller.settings.environment import PREFIX, EnvironmentSettings, Flag, whole_number
from controller.settings.quantity import Quantity, quantity_value
from policy.manifest import InvalidPolicyError
from policy.report import printable

_LONGEST_VALUE: Final = 40
_REMEDY: Final = "or ask the operator's administrator"


class NotAllowedError(InvalidPolicyError):
    """The policy is valid, but asks for more than the operator's configuration allows."""


def _positive_quantity(text: str) -> str:
    try:
        usable = not text or quantity_value(text) > 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"must be a quantity above zero, such as 2, 500m or 1Gi, not {text!r}")
    return text


_QuantityText = Annotated[str, AfterValidator(_positive_quantity)]


class Limits(EnvironmentSettings):
    """The most that a policy may ask for: ``SESSION_POLICY_JOB_MAX_*`` and ``SESSION_POLICY_JOB_ALLOW_*``.

    Attributes:
        max_cpu: CPU that a cleanup Pod may request or use, as a quantity; empty for any.
        max_memory: memory, likewise.
        max_timeout_seconds: longest time limit of one attempt; None for any that the schema allows.
        max_retries: most attempts after the first; None for any that the schema allows.
        max_parallelism: most Pods of one run; None for any number that the schema allows.
        allow_node_selector: whether policies may choose nodes.
        allow_tolerations: whether policies may tolerate taints.
        allow_log_volumes: whether policies may have a PersistentVolumeClaim mounted.
        allow_telemetry_endpoint: whether policies may name a collector of their own.
    """

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}JOB_")

    max_cpu: _QuantityText = ""
    max_memory: _QuantityText = ""
    max_timeout_seconds: Annotated[int | None, whole_number(30)] = None
    max_retries: Annotated[int | None, whole_number(0)] = None
    max_parallelism: Annotated[int | None, whole_number(1)] = None
    allow_node_selector: Flag = True
    allow_tolerations: Flag = True
    allow_log_volumes: Flag = True
    # A host of the author's choice; all others come from Secrets.
    allow_telemetry_endpoint: Flag = False

    def resource(self, name: str) -> str:
        """The most of a resource, as a quantity; empty for any amount."""
        return {"cpu": self.max_cpu, "memory": self.max_memory}.get(name, "")

    def excesses(self, job_spec: Mapping[str, Any]) -> list[str]:
        """What a Job asks for over these limits.

        Args:
            job_spec: a Job's spec, whether built or as the server shows it, whose quantities are valid.

        Returns:
            A line for each excess: the policy's field, the value, what is allowed, and the remedy.
        """
        return [*self._too_much(job_spec), *self._forbidden(job_spec["template"]["spec"])]

    def _too_much(self, job_spec: Mapping[str, Any]) -> Iterator[str]:
        pod = job_spec["template"]["spec"]
        for resources in (container.get("resources") or {} for container in pod["containers"]):
            for kind in ("requests", "limits"):
                for name, amount in (resources.get(kind) or {}).items():
                    most = self.resource(name)
                    if most and quantity_value(amount) > quantity_value(most):
                        yield _over(f"resources.{kind}.{name}", amount, most)
        for field, value, bound in (
            ("timeoutSeconds", pod.get("activeDeadlineSeconds"), self.max_timeout_seconds),
            # An Indexed Job has as many for each of its Pods.
            ("retries", job_spec.get("backoffLimitPerIndex", job_spec.get("backoffLimit")), self.max_retries),
            ("parallelism", job_spec.get("parallelism", 1), self.max_parallelism),
        ):
            if bound is not None and (value is None or value > bound):
                yield _over(field, "no limit" if value is None else value, bound)

    def _forbidden(self, pod: Mapping[str, Any]) -> Iterator[str]:
        telemetry = (container_env.policy(pod).get("spec") or {}).get("telemetry") or {}
        for field, asked, allowed in (
            ("job.nodeSelector", pod.get("nodeSelector"), self.allow_node_selector),
            ("job.tolerations", pod.get("tolerations"), self.allow_tolerations),
            ("logs.volumeClaim", pod.get("volumes"), self.allow_log_volumes),
            ("telemetry.endpoint", telemetry.get("endpoint"), self.allow_telemetry_endpoint),
        ):
            if asked and not allowed:
                yield f"spec.{field}: the operator's configuration does not allow it; leave it out, {_REMEDY}"


def _over(field: str, value: Quantity, most: Quantity) -> str:
    shown = printable(str(value), _LONGEST_VALUE)
    return (
        f"spec.job.{field}: {shown} is over {most}, the most that the operator's configuration allows; "
        f"lower it, {_REMEDY}"
    )
