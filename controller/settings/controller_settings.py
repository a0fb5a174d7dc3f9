"""The controller's configuration: read once from the environment, immutable afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from controller.settings.job_telemetry import JobTelemetry
from controller.settings.limits import Limits
from controller.settings.pod_extras import PodExtras

_PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
_LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")


class InvalidSettingsError(ValueError):
    """The environment does not configure the controller; the message has one line for each problem."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Election:
    """Where the controllers agree which one of them works.

    Attributes:
        lease_namespace: namespace of the Lease, usually the controllers' own.
        pod_name: name of this controller's Pod, for people who look at the Lease.
        lease_name: name of the Lease.
    """

    lease_namespace: str
    pod_name: str
    lease_name: str = "session-policy-operator"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator's administrator decides, and the policies' authors cannot.

    Attributes:
        job_image: image of the cleanup container.
        job_image_pull_policy: Always, IfNotPresent or Never.
        job_image_pull_secrets: names of Secrets, in each policy's namespace, that hold registry credentials.
        job_priority_class: PriorityClass of the cleanup Pods; empty for the cluster's default.
        watch_namespaces: namespaces that are served; empty for all.
        log_level: DEBUG, INFO, WARNING or ERROR.
        resync_seconds: every policy is looked at again after this time, whatever events say.
        http_port: TCP port of ``/healthz``, ``/readyz`` and ``/metrics``.
        election: where the controllers agree which one works; None for a controller that is alone.
        limits: the most that a policy may ask for.
        pod_extras: what every cleanup Pod gets besides.
        job_telemetry: what runs export.
    """

    job_image: str
    job_image_pull_policy: str = "IfNotPresent"
    job_image_pull_secrets: tuple[str, ...] = ()
    job_priority_class: str = ""
    watch_namespaces: tuple[str, ...] = ()
    log_level: str = "INFO"
    resync_seconds: int = 600
    http_port: int = 8080
    election: Election | None = None
    limits: Limits = field(default_factory=Limits)
    pod_extras: PodExtras = field(default_factory=PodExtras)
    job_telemetry: JobTelemetry = field(default_factory=JobTelemetry)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the ``SESSION_POLICY_*`` variables.

        Raises:
            InvalidSettingsError: one is missing or wrong.
        """
        problems: list[str] = []

        def text(name: str, default: str = "") -> str:
            return environment.get(name, "").strip() or default

        def names(name: str) -> tuple[str, ...]:
            return tuple(part.strip() for part in text(name).split(",") if part.strip())

        def choice(name: str, allowed: tuple[str, ...], default: str) -> str:
            value = text(name, default)
            if value not in allowed:
                problems.append(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
            return value

        def number(name: str, default: int, lowest: int, highest: int) -> int:
            value = text(name, str(default))
            if not (value.isascii() and value.isdigit() and lowest <= int(value) <= highest):
                problems.append(f"{name} must be a whole number from {lowest} to {highest}, not {value!r}")
                return default
            return int(value)

        def flag(name: str, *, default: bool) -> bool:
            return choice(name, ("true", "false"), str(default).lower()) == "true"

        def required(name: str) -> str:
            value = text(name)
            if not value:
                problems.append(f"{name} must be set where SESSION_POLICY_LEADER_ELECTION is true")
            return value

        def election() -> Election:
            return Election(
                lease_namespace=required("SESSION_POLICY_LEASE_NAMESPACE"),
                pod_name=required("SESSION_POLICY_POD_NAME"),
                lease_name=text("SESSION_POLICY_LEASE_NAME", "session-policy-operator"),
            )

        settings = cls(
            job_image=text("SESSION_POLICY_JOB_IMAGE"),
            job_image_pull_policy=choice("SESSION_POLICY_JOB_IMAGE_PULL_POLICY", _PULL_POLICIES, "IfNotPresent"),
            job_image_pull_secrets=names("SESSION_POLICY_JOB_IMAGE_PULL_SECRETS"),
            job_priority_class=text("SESSION_POLICY_JOB_PRIORITY_CLASS"),
            watch_namespaces=names("SESSION_POLICY_WATCH_NAMESPACES"),
            log_level=choice("SESSION_POLICY_LOG_LEVEL", _LOG_LEVELS, "INFO"),
            resync_seconds=number("SESSION_POLICY_RESYNC_SECONDS", 600, 1, 86_400),
            http_port=number("SESSION_POLICY_HTTP_PORT", 8080, 1, 65_535),
            election=election() if flag("SESSION_POLICY_LEADER_ELECTION", default=False) else None,
            limits=Limits.from_environment(environment, problems),
            pod_extras=PodExtras.from_environment(environment, problems),
            job_telemetry=JobTelemetry.from_environment(environment, problems),
        )
        if not settings.job_image:
            problems.append("SESSION_POLICY_JOB_IMAGE must name the image of the cleanup container")
        if problems:
            raise InvalidSettingsError(problems)
        return settings
