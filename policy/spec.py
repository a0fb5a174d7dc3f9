"""The spec of a SessionPolicy."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from policy.alerts import Alerts
from policy.mapping import Columns
from policy.model import Model, Rule
from policy.profiles import Profile
from policy.rules import DEFAULT_RULES, SessionRule
from policy.stores import Stores, ValueSource

_YEAR_SECONDS = 366 * 24 * 3600


class OnExceed(StrEnum):
    """What happens to a user's sessions over the limit."""

    EVICT_LEAST_RECENTLY_USED = "EvictLeastRecentlyUsed"
    EVICT_OLDEST = "EvictOldest"
    EVICT_NEWEST = "EvictNewest"
    REPORT = "Report"


class Concurrency(Model):
    """What happens when a user has more than maxConcurrentSessions."""

    on_exceed: OnExceed = OnExceed.EVICT_LEAST_RECENTLY_USED
    """Which of the user's sessions are deleted until the user is within the limit; Report only counts them."""
    exempt_users: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=1000)] = []
    """User ids that may have any number of sessions, e.g. service accounts."""


class DuplicateAction(StrEnum):
    """What happens to several sessions of one user on one client."""

    REPORT = "Report"
    KEEP_NEWEST = "KeepNewest"


class Duplicates(Model):
    """Several live sessions of the same user on the same client."""

    action: DuplicateAction = DuplicateAction.REPORT
    """Report counts them; KeepNewest deletes all but the one created last."""


class OnMissingRedisSession(StrEnum):
    """What happens to a live database row whose Redis session is gone."""

    REPORT = "Report"
    DELETE = "Delete"


class Sync(Model):
    """Synchronisation of Redis with the database. The database is the source of truth."""

    on_missing_redis_session: OnMissingRedisSession = OnMissingRedisSession.REPORT
    """A live row without a session key in Redis: Report counts it, Delete deletes the row. Choose Delete only if Redis
    never loses data while sessions are live."""
    default_ttl_seconds: Annotated[int, Field(ge=60, le=10 * _YEAR_SECONDS)] = 30 * 24 * 3600
    """A session key without a TTL gets one, so that it cannot stay for ever: the rest of its absolute timeout or,
    without one, this many seconds. It is not an idle timeout: a session whose TTL is never renewed ends with it, even
    while it is in use."""
    grace_seconds: Annotated[int, Field(ge=0, le=600)] = 5
    """How long a login may take between its write to one store and to the other, in seconds. A session that looks
    orphaned is checked again after this time before it is deleted."""


class Safety(Model):
    """Limits that every run keeps, whatever the rest of the policy says."""

    max_delete_percent: Annotated[int, Field(ge=1, le=100)] = 50
    """If a run would delete more than this percentage of all sessions, it deletes none and fails. Raise it for a first
    run on a backlog, after a dry run."""
    always_allowed_deletions: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """maxDeletePercent does not apply to a run that would delete this many sessions or fewer."""
    max_deletions: Annotated[int, Field(ge=0, le=10_000_000_000)] = 0
    """Maximum number of sessions one run deletes; the next run deletes the rest. 0 means no limit."""
    clock_skew_seconds: Annotated[int, Field(ge=0, le=300)] = 5
    """How far the clocks of container, database and Redis may differ, in seconds. A session is deleted only when it is
    past its timeout by more than this; if the clocks differ by more, the run fails with ClockSkew."""


class Retry(Model):
    """How often an operation is retried, and after which pause."""

    attempts: Annotated[int, Field(ge=0, le=10)] = 3
    """Number of retries after the first failure."""
    delay_seconds: Annotated[int, Field(ge=0, le=300)] = 30
    """Pause before each retry, in seconds."""


class DeletionRetry(Retry):
    """Retries of a deletion: as Retry, with a shorter pause."""

    delay_seconds: Annotated[int, Field(ge=0, le=300)] = 10
    """Pause before each retry, in seconds."""


class Retries(Model):
    """Retries within one run."""

    deletion: DeletionRetry = DeletionRetry()
    """A batch of deletions that failed. After the last retry the run continues without that batch."""
    database: Retry = Retry()
    """A database that cannot be reached, or a statement that failed."""
    redis: Retry = Retry()
    """A Redis that cannot be reached."""


class CleanupStrategy(StrEnum):
    """How expired sessions are found."""

    AUTO = "Auto"
    EXPIRY_INDEX = "ExpiryIndex"
    PHYSICAL_RANGES = "PhysicalRanges"
    ID_ORDER = "IdOrder"


class BatchSizing(StrEnum):
    """How the size of a deleting transaction is chosen."""

    ADAPTIVE = "Adaptive"
    FIXED = "Fixed"


class Cleanup(Model):
    """How expired sessions are found and deleted, and how much load that may cause."""

    strategy: CleanupStrategy = CleanupStrategy.AUTO
    """How expired sessions are found. Auto chooses by the table's statistics and logs the reason. ExpiryIndex uses the
    indexes on the expiry columns, PhysicalRanges reads the table block by block (PostgreSQL 14 and later, plain
    tables), IdOrder reads the table in the order of its ids."""
    batch_sizing: BatchSizing = BatchSizing.ADAPTIVE
    """Adaptive starts with cleanupBatchSize and then sizes each transaction to take a few hundredths of a second, one
    hundredth while other clients write to the database server; Fixed always uses cleanupBatchSize."""
    throttle_percent: Annotated[int, Field(ge=1, le=100)] = 100
    """Percentage of the time that the deletion of expired sessions may work. With 25 it pauses three times as long as
    it works."""


class Statistics(Model):
    """Statistics kept in the database, in the tables that `session-policy init` creates."""

    enabled: bool = True
    """Whether statistics and the per-user history are kept. Without their tables a run warns and continues."""
    retention_days: Annotated[int, Field(ge=1, le=3650)] = 90
    """How long statistics and history are kept, in days."""


def _quantity_schema() -> dict[str, Any]:
    number = r"(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    pattern = rf"^(\+|-)?{number}(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?{number}))?$"
    return {
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": pattern,
        "x-kubernetes-int-or-string": True,
    }


Quantity = Annotated[int | str, WithJsonSchema(_quantity_schema())]


class Amounts(Model):
    """Amounts of the compute resources that a policy may ask for."""

    cpu: Quantity | None = None
    """CPU, e.g. 100m."""
    memory: Quantity | None = None
    """Memory, e.g. 128Mi."""
    ephemeral_storage: Annotated[Quantity | None, Field(alias="ephemeral-storage")] = None
    """Local disk, e.g. 1Gi."""


class Resources(Model):
    """Compute resources of the cleanup container."""

    requests: Amounts = Amounts()
    """Resource requests, e.g. {cpu: 100m, memory: 128Mi}. Fields left out take the operator's default."""
    limits: Amounts = Amounts()
    """Resource limits. Fields left out take the operator's default."""


class TolerationOperator(StrEnum):
    """How a toleration's key is compared."""

    EQUAL = "Equal"
    EXISTS = "Exists"


class TaintEffect(StrEnum):
    """Effect of the taint that is tolerated."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Model):
    """A toleration of the Pod, as in a Pod's spec."""

    key: Annotated[str, Field(max_length=316)] | None = None
    """Key of the taint."""
    operator: TolerationOperator = TolerationOperator.EQUAL
    """Equal or Exists."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """Value of the taint."""
    effect: TaintEffect | None = None
    """Effect of the taint; empty for all."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long a NoExecute taint is tolerated, in seconds."""


class JobOptions(Model):
    """Options of the run's Job and Pod. Image, command and service account are set by the operator."""

    timeout_seconds: Annotated[int, Field(ge=30, le=86400)] = 600
    """Time limit of one attempt, in seconds. The run stops a little earlier and reports what remains."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a failed attempt is retried with a new Pod."""
    parallelism: Annotated[int, Field(ge=1, le=16)] = 1
    """Number of Pods that share the deletion of expired sessions, each with these resources. It helps where the
    database server has cores to spare for more than one connection. Needs Kubernetes 1.31 and the table session_work,
    which `session-policy init` creates."""
    resources: Resources = Resources()
    """Compute resources of the container."""
    node_selector: dict[str, str] = {}
    """Labels a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=50)] = []
    """Taints the Pod tolerates."""


# The API server estimates what a CEL rule may cost from the lengths of what it reads: keep strings bounded.
_SCHEDULE_MAX_LENGTH = 128


def _columns(spec: SessionPolicySpec) -> Columns | None:
    table = spec.stores.database.table if spec.stores.database else None
    return table.columns if table else None


def _maps(spec: SessionPolicySpec, *fields: str) -> bool:
    """Whether the spec's own columns, if it has any, map all these fields; presets map what they need."""
    columns = _columns(spec)
    return columns is None or all(getattr(columns, field) is not None for field in fields)


_HAS_COLUMNS = "has(self.stores.database) && has(self.stores.database.table) && has(self.stores.database.table.columns)"
_COLUMNS = "self.stores.database.table.columns"


def _evicts(spec: SessionPolicySpec, *kinds: OnExceed) -> bool:
    return spec.max_concurrent_sessions > 0 and spec.concurrency.on_exceed in kinds and _maps(spec, "user_id")


class Logs(Model):
    """Logs of a run, besides those on standard output."""

    hash_key_from: ValueSource | None = None
    """Key that session and user ids are hashed with in logs and alerts. With the same key, a session has the same hash
    everywhere; without one, each run uses a key of its own."""
    volume_claim: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """A PersistentVolumeClaim of the policy's namespace that also receives the logs: batch/, session/, alerts/."""
    deleted_sessions: bool = True
    """Whether runs log each deleted session (the cleanup log). Without it only counts are reported, and deleting very
    many sessions is much faster: PostgreSQL then counts them itself."""
    run_retention_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """How long run logs are kept on the volume, in days."""
    error_retention_days: Annotated[int, Field(ge=1, le=3650)] = 90
    """How long error logs are kept on the volume, in days."""
    cleanup_retention_days: Annotated[int, Field(ge=1, le=3650)] = 7
    """How long cleanup logs (each deleted session) are kept on the volume, in days."""
    alert_retention_days: Annotated[int, Field(ge=1, le=3650)] = 90
    """How long alert logs are kept on the volume, in days."""


class Telemetry(Model):
    """Traces and metrics that runs export over OTLP, if the operator's configuration names a collector."""

    enabled: bool = True
    """Whether runs are traced and export their counts as metrics."""
    sampling_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Percentage of runs that are traced. Default: the operator's."""
    endpoint: (
        Annotated[
            str,
            # No user, no variable of the Pod, no query: nothing that could carry a secret.
            Field(max_length=512, pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$"),
        ]
        | None
    ) = None
    """Another OTLP collector for this policy, e.g. http://collector:4318, if the operator's configuration allows it.
    The operator's headers are not sent to it."""


class SessionPolicySpec(Model):
    """Where sessions are stored, how long they live, how many a user may have, and when they are cleaned up."""

    schedule: Annotated[str, Field(min_length=1, max_length=_SCHEDULE_MAX_LENGTH)] = "50 * * * *"
    """When runs start: a cron expression of five fields, validated by the API server as that of a CronJob."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "Etc/UTC"
    """IANA time zone of the schedule, e.g. Europe/Berlin."""
    suspend: bool = False
    """Suspends scheduled runs. A run in progress continues; runs requested by annotation still start."""
    dry_run: bool = False
    """Runs report what they would do and change nothing."""
    profile: Profile | None = None
    """Timeouts customary for a kind of application. Timeouts set explicitly take precedence."""
    session_timeout_seconds: Annotated[int, Field(ge=60, le=_YEAR_SECONDS)] | None = None
    """Idle timeout in seconds: a session not used for this long has expired. Default: the profile's, else 1800."""
    absolute_timeout_seconds: Annotated[int, Field(ge=60, le=10 * _YEAR_SECONDS)] | None = None
    """Absolute timeout in seconds: a session older than this has expired, however recently it was used. Default: the
    profile's, else none."""
    cleanup_batch_size: Annotated[int, Field(ge=1, le=50_000)] = 1000
    """How many sessions one transaction deletes: at first, or always; see cleanup.batchSizing."""
    cleanup: Cleanup = Cleanup()
    """How expired sessions are found and deleted, and how much load that may cause."""
    max_concurrent_sessions: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    """Maximum number of live sessions per user; 0 means no limit. Applies where a user column is mapped."""
    concurrency: Concurrency = Concurrency()
    """What happens to sessions over maxConcurrentSessions."""
    duplicates: Duplicates = Duplicates()
    """What happens to several sessions of one user on one client. Applies where userId and client are mapped."""
    rules_: Annotated[list[SessionRule], Field(max_length=50)] | None = Field(default=None, alias="rules")
    """Rules that detect abnormal and invalid sessions, and what happens to those. Default: every type with action
    Report, except Revoked with action Delete."""
    stores: Stores
    """The database and the Redis that hold the sessions."""
    sync: Sync = Sync()
    """Synchronisation of Redis with the database."""
    safety: Safety = Safety()
    """Limits that every run keeps."""
    retries: Retries = Retries()
    """Retries within a run."""
    statistics: Statistics = Statistics()
    """Statistics kept in the database."""
    alerts: Alerts = Alerts()
    """Where alerts are sent, and from which thresholds on."""
    logs: Logs = Logs()
    """Log files on a volume, and the hashing of ids in logs."""
    telemetry: Telemetry = Telemetry()
    """Traces and metrics of the runs."""
    job: JobOptions = JobOptions()
    """Options of the run's Job and Pod."""

    rules = (
        Rule(
            cel="!has(self.absoluteTimeoutSeconds) || !has(self.sessionTimeoutSeconds) || "
            "self.absoluteTimeoutSeconds >= self.sessionTimeoutSeconds",
            message="absoluteTimeoutSeconds must not be shorter than sessionTimeoutSeconds: "
            "the idle timeout could never be reached",
            holds=lambda s: (
                s.absolute_timeout_seconds is None
                or s.session_timeout_seconds is None
                or s.absolute_timeout_seconds >= s.session_timeout_seconds
            ),
        ),
        Rule(
            cel=f"!has(self.absoluteTimeoutSeconds) || !({_HAS_COLUMNS}) || has({_COLUMNS}.createdAt)",
            message="absoluteTimeoutSeconds needs stores.database.table.columns.createdAt",
            holds=lambda s: s.absolute_timeout_seconds is None or _maps(s, "created_at"),
        ),
        Rule(
            cel=f"!has(self.sessionTimeoutSeconds) || !({_HAS_COLUMNS}) || has({_COLUMNS}.lastAccessedAt)",
            message="sessionTimeoutSeconds needs stores.database.table.columns.lastAccessedAt",
            holds=lambda s: s.session_timeout_seconds is None or _maps(s, "last_accessed_at"),
        ),
        Rule(
            cel=f"self.maxConcurrentSessions == 0 || !({_HAS_COLUMNS}) || !has({_COLUMNS}.userId) || "
            f"self.concurrency.onExceed != 'EvictLeastRecentlyUsed' || has({_COLUMNS}.lastAccessedAt)",
            message="concurrency.onExceed EvictLeastRecentlyUsed needs stores.database.table.columns.lastAccessedAt; "
            "map it or choose another onExceed",
            holds=lambda s: not _evicts(s, OnExceed.EVICT_LEAST_RECENTLY_USED) or _maps(s, "last_accessed_at"),
        ),
        Rule(
            cel=f"self.maxConcurrentSessions == 0 || !({_HAS_COLUMNS}) || !has({_COLUMNS}.userId) || "
            f"!(self.concurrency.onExceed in ['EvictOldest', 'EvictNewest']) || has({_COLUMNS}.createdAt)",
            message="concurrency.onExceed EvictOldest and EvictNewest need stores.database.table.columns.createdAt; "
            "map it or choose another onExceed",
            holds=lambda s: not _evicts(s, OnExceed.EVICT_OLDEST, OnExceed.EVICT_NEWEST) or _maps(s, "created_at"),
        ),
    )

    @property
    def session_rules(self) -> tuple[SessionRule, ...]:
        """The rules that apply: the policy's own, else the default ones."""
        return DEFAULT_RULES if self.rules_ is None else tuple(self.rules_)
