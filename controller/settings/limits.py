"""What the operator's administrator lets a policy ask for.

A policy that asks for more is refused, never cut: what a policy says and what runs must agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.settings import container_env
from controller.settings.quantity import Quantity, quantity_value
from policy.manifest import InvalidPolicyError
from policy.report import printable

_LONGEST_VALUE: Final = 40
_TRUTH: Final = {"true": True, "false": False}
_REMEDY: Final = "or ask the operator's administrator"


class NotAllowedError(InvalidPolicyError):
    """The policy is valid, but asks for more than the operator's configuration allows."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a policy may ask for.

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

    max_cpu: str = ""
    max_memory: str = ""
    max_timeout_seconds: int | None = None
    max_retries: int | None = None
    max_parallelism: int | None = None
    allow_node_selector: bool = True
    allow_tolerations: bool = True
    allow_log_volumes: bool = True
    allow_telemetry_endpoint: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], problems: list[str]) -> Limits:
        """Read the ``SESSION_POLICY_JOB_MAX_*`` and ``SESSION_POLICY_JOB_ALLOW_*`` variables.

        Args:
            environment: of the process.
            problems: gets a line for each variable that is wrong.
        """

        def text(name: str) -> str:
            return environment.get(name, "").strip()

        def quantity(name: str) -> str:
            value = text(name)
            try:
                usable = not value or quantity_value(value) > 0
            except ValueError:
                usable = False
            if not usable:
                problems.append(f"{name} must be a quantity above zero, such as 2, 500m or 1Gi, not {value!r}")
            return value if usable else ""

        def number(name: str, lowest: int) -> int | None:
            value = text(name)
            if value and not (value.isascii() and value.isdigit() and int(value) >= lowest):
                problems.append(f"{name} must be a whole number from {lowest}, not {value!r}")
                return None
            return int(value) if value else None

        def truth(name: str, default: str = "true") -> bool:
            value = text(name) or default
            if value not in _TRUTH:
                problems.append(f"{name} must be true or false, not {value!r}")
            return _TRUTH.get(value, False)

        return cls(
            max_cpu=quantity("SESSION_POLICY_JOB_MAX_CPU"),
            max_memory=quantity("SESSION_POLICY_JOB_MAX_MEMORY"),
            # No policy can ask for less than 30 seconds.
            max_timeout_seconds=number("SESSION_POLICY_JOB_MAX_TIMEOUT_SECONDS", 30),
            max_retries=number("SESSION_POLICY_JOB_MAX_RETRIES", 0),
            max_parallelism=number("SESSION_POLICY_JOB_MAX_PARALLELISM", 1),
            allow_node_selector=truth("SESSION_POLICY_JOB_ALLOW_NODE_SELECTOR"),
            allow_tolerations=truth("SESSION_POLICY_JOB_ALLOW_TOLERATIONS"),
            allow_log_volumes=truth("SESSION_POLICY_JOB_ALLOW_LOG_VOLUMES"),
            # A host of the author's choice; all others come from Secrets.
            allow_telemetry_endpoint=truth("SESSION_POLICY_JOB_ALLOW_TELEMETRY_ENDPOINT", "false"),
        )

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
