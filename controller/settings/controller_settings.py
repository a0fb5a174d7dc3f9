"""The controller's configuration: read once from the environment, immutable afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar

from controller.settings.environment import (
    EnvironmentSettings,
    Flag,
    InvalidSettingsError,
    Names,
    Required,
    one_of,
    whole_number,
)
from controller.settings.job_telemetry import JobTelemetry
from controller.settings.limits import Limits
from controller.settings.pod_extras import PodExtras

S = TypeVar("S", bound=EnvironmentSettings)

_ELECTION_RULE = "must be set where SESSION_POLICY_LEADER_ELECTION is true"


class LeaderElection(EnvironmentSettings):
    """Where the controllers agree which one of them works.

    Attributes:
        lease_namespace: namespace of the Lease, usually the controllers' own.
        pod_name: name of this controller's Pod, for people who look at the Lease.
        lease_name: name of the Lease.
    """

    lease_namespace: Annotated[str, Required(_ELECTION_RULE)]
    pod_name: Annotated[str, Required(_ELECTION_RULE)]
    lease_name: str = "session-policy-operator"


class Settings(EnvironmentSettings):
    """What the operator's administrator decides, and the policies' authors cannot.

    Attributes:
        job_image: image of the cleanup container.
        job_image_pull_policy: Always, IfNotPresent or Never.
        job_image_pull_secrets: names of Secrets, in each policy's namespace, that hold registry credentials.
        job_priority_class: PriorityClass of the cleanup Pods; empty for the cluster's default.
        watch_namespaces: namespaces that are served; empty for all.
        log_level: DEBUG, INFO, WARNING or ERROR.
        resync_seconds: every policy is reconciled again after this time, whatever events say.
        http_port: TCP port of ``/healthz``, ``/readyz`` and ``/metrics``.
        leader_election: whether there may be other controllers.
        election: where the controllers agree which one works; None for a controller that is alone.
        limits: the most that a policy may ask for.
        pod_extras: what every cleanup Pod gets besides.
        job_telemetry: what runs export.
    """

    job_image: Annotated[str, Required("must name the image of the cleanup container")]
    job_image_pull_policy: Annotated[str, one_of("Always", "IfNotPresent", "Never")] = "IfNotPresent"
    job_image_pull_secrets: Names = ()
    job_priority_class: str = ""
    watch_namespaces: Names = ()
    log_level: Annotated[str, one_of("DEBUG", "INFO", "WARNING", "ERROR")] = "INFO"
    resync_seconds: Annotated[int, whole_number(1, 86_400)] = 600
    http_port: Annotated[int, whole_number(1, 65_535)] = 8080
    leader_election: Flag = False
    election: LeaderElection | None = None
    limits: Limits = Limits()
    pod_extras: PodExtras = PodExtras()
    job_telemetry: JobTelemetry = JobTelemetry()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the ``SESSION_POLICY_*`` variables.

        Raises:
            InvalidSettingsError: one is missing or wrong; the message lists all problems.
        """
        problems: list[str] = []

        def read(settings: Callable[[], S]) -> S | None:
            try:
                return settings()
            except InvalidSettingsError as error:
                problems.extend(error.problems)
                return None

        has_others = environment.get(cls.variable("leader_election"), "").strip() == "true"
        groups = {
            "election": read(lambda: LeaderElection.read(environment)) if has_others else None,
            "limits": read(lambda: Limits.read(environment)) or Limits(),
            "pod_extras": read(lambda: PodExtras.read(environment)) or PodExtras(),
            "job_telemetry": read(lambda: JobTelemetry.read(environment)) or JobTelemetry(),
        }
        settings = read(lambda: cls.read(environment, **groups))
        if settings is None or problems:
            raise InvalidSettingsError(problems)
        return settings
