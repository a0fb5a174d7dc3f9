"""The spec of a SessionPolicy: what a platform engineer writes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from policy.alerts import Alerts
from policy.model import Model, Rule
from policy.profiles import Profile
from policy.rules import DEFAULT_RULES, SessionRule
from policy.stores import Columns, Stores, ValueSource

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
    """Which of the user's sessions are deleted until the limit holds; Report only counts them."""
    exempt_users: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=1000)] = []
    """User ids that may have any number of sessions, e.g. service accounts."""


class DuplicateAction(StrEnum):
    """What happens to several sessions of one user on one client."""

    REPORT = "Report"
    KEEP_NEWEST = "KeepNewest"


class Duplicates(Model):
    """Several live sessions of the same user on the same client."""

    action: DuplicateAction = DuplicateAction.REPORT
    """Report counts them; KeepNewest deletes all but the one that began last."""


class OnMissingRedisSession(StrEnum):
    """What happens to a live database row whose Redis session is gone."""

    REPORT = "Report"
    DELETE = "Delete"


class Sync(Model):
    """How Redis and the database are made to agree. The database decides; Redis follows."""

    on_missing_redis_session: OnMissingRedisSession = OnMissingRedisSession.REPORT
    """A live row whose Redis session is gone: Report counts it, Delete ends the session. Choose Delete only if Redis
    never loses data while sessions are live."""
    default_ttl_seconds: Annotated[int, Field(ge=60, le=10 * _YEAR_SECONDS)] = 30 * 24 * 3600
    """A session key without a TTL gets one, so that it cannot stay for ever: until its absolute timeout or, where there
    is none, this long. It is no idle timeout: an application that never renews it would lose sessions in use."""
    grace_seconds: Annotated[int, Field(ge=0, le=600)] = 5
    """How long a login may take between its write to one store and to the other. What looks orphaned is looked at again
    after this time before it goes."""


class Safety(Model):
    """Limits that a run never crosses, whatever the rest of the policy says."""

    max_delete_percent: Annotated[int, Field(ge=1, le=100)] = 50
    """If more than this share of all sessions would go, none does and the run fails. Raise it for a first run on a
    backlog, after a dry run."""
    always_allowed_deletions: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """The share is not applied to a run that would delete no more sessions than this."""
    max_deletions: Annotated[int, Field(ge=0, le=10_000_000_000)] = 0
    """The most sessions one run may delete; the rest is left to the next run. 0 means no such limit."""
    clock_skew_seconds: Annotated[int, Field(ge=0, le=300)] = 5
    """How far clocks may differ. A session must be past its timeout by more than this to go, and a run refuses to work
    when the clocks of container, database and Redis are further apart."""


class Retry(Model):
    """How often and how patiently something is tried again."""

    attempts: Annotated[int, Field(ge=0, le=10)] = 3
    """How often it is tried again after the first failure."""
    delay_seconds: Annotated[int, Field(ge=0, le=300)] = 30
    """Pause before each new attempt, in seconds."""


class DeletionRetry(Retry):
    """As Retry, with a shorter pause."""

    delay_seconds: Annotated[int, Field(ge=0, le=300)] = 10
    """Pause before each new attempt, in seconds."""


class Retries(Model):
    """Retries within one run."""

    deletion: DeletionRetry = DeletionRetry()
    """A batch of deletions that failed. When attempts are used up, the run goes on without it."""
    database: Retry = Retry()
    """A database that cannot be reached, or an update that failed."""
    redis: Retry = Retry()
    """A Redis that cannot be reached."""


class CleanupStrategy(StrEnum):
    """How expired sessions are found."""

    AUTO = "Auto"
    EXPIRY_INDEX = "ExpiryIndex"
    PHYSICAL_RANGES = "PhysicalRanges"
    ID_ORDER = "IdOrder"


class BatchSizing(StrEnum):
    """What decides how much a transaction deletes."""

    ADAPTIVE = "Adaptive"
    FIXED = "Fixed"


class Cleanup(Model):
    """How fast expired sessions are deleted, and how gently."""

    strategy: CleanupStrategy = CleanupStrategy.AUTO
    """How expired sessions are found. Auto chooses by the table's statistics and says why in the log. ExpiryIndex goes
    by the indexes on the expiry columns, PhysicalRanges reads the table block by block (PostgreSQL 14 and later, plain
    tables), IdOrder goes by the ids."""
    batch_sizing: BatchSizing = BatchSizing.ADAPTIVE
    """Adaptive begins with cleanupBatchSize and lets each transaction take a few hundredths of a second, but only one
    while others write to the database server; Fixed keeps to cleanupBatchSize."""
    throttle_percent: Annotated[int, Field(ge=1, le=100)] = 100
    """The share of the time that the deletion of expired sessions may be at work, in percent. With 25 it rests three
    times as long as it works."""


class Statistics(Model):
    """Statistics kept in the database, in the tables that `session-policy init` creates."""

    enabled: bool = True
    """Whether statistics and the per-user history are kept. Without their tables a run warns and goes on."""
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
    """Amounts of compute resources; there are no others that a policy may ask for."""

    cpu: Quantity | None = None
    """CPU, e.g. 100m."""
    memory: Quantity | None = None
    """Memory, e.g. 128Mi."""
    ephemeral_storage: Annotated[Quantity | None, Field(alias="ephemeral-storage")] = None
    """Local disk, e.g. 1Gi."""


class Resources(Model):
    """Compute resources of the cleanup container."""

    requests: Amounts = Amounts()
    """What is reserved, e.g. {cpu: 100m, memory: 128Mi}. What is left out takes the operator's default."""
    limits: Amounts = Amounts()
    """What may be used at most. What is left out takes the operator's default."""


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
    """A taint the Pod tolerates, as in a Pod's spec."""

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
    """How the run's Pod is made. Image, command and service account belong to the operator, not to the policy."""

    timeout_seconds: Annotated[int, Field(ge=30, le=86400)] = 600
    """Time limit of one attempt, in seconds. The run stops itself a little earlier and reports what remains."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a failed attempt is repeated with a new Pod."""
    parallelism: Annotated[int, Field(ge=1, le=16)] = 1
    """How many Pods share the deletion of expired sessions, each with these resources. It helps where a database server
    has cores to spare for more than one connection; needs Kubernetes 1.31 and the table session_work that
    `session-policy init` creates."""
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
    """Where the key is that session and user ids are hashed with in logs and alerts. With the same key, the same
    session has the same hash everywhere; without one, each run has its own."""
    volume_claim: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """A PersistentVolumeClaim of the policy's namespace that also receives the logs: batch/, session/, alerts/."""
    deleted_sessions: bool = True
    """Whether runs log each deleted session (the cleanup log). Without, only their counts tell of it, and very many
    sessions go much faster: PostgreSQL then counts them itself."""
    run_retention_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """How long run logs are kept on the volume, in days."""
    error_retention_days: Annotated[int, Field(ge=1, le=3650)] = 90
    """How long error logs are kept on the volume, in days."""
    cleanup_retention_days: Annotated[int, Field(ge=1, le=3650)] = 7
    """How long cleanup logs (each deleted session) are kept on the volume, in days."""
    alert_retention_days: Annotated[int, Field(ge=1, le=3650)] = 90
    """How long alert logs are kept on the volume, in days."""


class Telemetry(Model):
    """What runs export over OTLP. Nothing, unless the operator's configuration names a collector."""

    enabled: bool = True
    """Whether runs are traced and export their counts as metrics."""
    sampling_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the runs that are traced, in percent. Default: the operator's."""
    endpoint: (
        Annotated[
            str,
            # No user, no variable of the Pod, no query: nothing that could carry a secret.
            Field(max_length=512, pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$"),
        ]
        | None
    ) = None
    """A collector of the policy's own, such as http://collector:4318, where the operator's configuration allows it. The
    operator's headers are not sent there."""


class SessionPolicySpec(Model):
    """How sessions are kept healthy: where they are, how long they live, how many a user may have."""

    schedule: Annotated[str, Field(min_length=1, max_length=_SCHEDULE_MAX_LENGTH)] = "50 * * * *"
    """When runs start: a cron expression of five fields. The API server judges it as a CronJob's."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "Etc/UTC"
    """IANA time zone of the schedule, e.g. Europe/Berlin."""
    suspend: bool = False
    """Stops scheduled runs. A running one goes on; runs asked for by annotation still start."""
    dry_run: bool = False
    """Runs find and report everything and change nothing."""
    profile: Profile | None = None
    """Lifetimes customary for a kind of application. Fields set explicitly win."""
    session_timeout_seconds: Annotated[int, Field(ge=60, le=_YEAR_SECONDS)] | None = None
    """Idle timeout: a session not used for this long has expired, in seconds. Default: the profile's, else 1800."""
    absolute_timeout_seconds: Annotated[int, Field(ge=60, le=10 * _YEAR_SECONDS)] | None = None
    """Absolute timeout: a session older than this has expired however much it is used, in seconds. Default: the
    profile's, else none."""
    cleanup_batch_size: Annotated[int, Field(ge=1, le=50_000)] = 1000
    """How many sessions are deleted in one transaction: to begin with, or always, as cleanup.batchSizing says."""
    cleanup: Cleanup = Cleanup()
    """How fast expired sessions are deleted, and how gently."""
    max_concurrent_sessions: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    """How many live sessions a user may have; 0 means any number. Applies where a user column is mapped."""
    concurrency: Concurrency = Concurrency()
    """What happens over that limit."""
    duplicates: Duplicates = Duplicates()
    """What happens to several sessions of one user on one client. Applies where userId and client are mapped."""
    rules_: Annotated[list[SessionRule], Field(max_length=50)] | None = Field(default=None, alias="rules")
    """What makes a session abnormal or invalid, and what happens to it. Default: all types with action Report, but
    Revoked with Delete."""
    stores: Stores
    """Where the sessions are."""
    sync: Sync = Sync()
    """How Redis and the database are made to agree."""
    safety: Safety = Safety()
    """What a run never does."""
    retries: Retries = Retries()
    """Retries within a run."""
    statistics: Statistics = Statistics()
    """Statistics kept in the database."""
    alerts: Alerts = Alerts()
    """Whom to tell when something is wrong."""
    logs: Logs = Logs()
    """Logs on a volume, and how ids are hashed."""
    telemetry: Telemetry = Telemetry()
    """Traces and metrics of the runs."""
    job: JobOptions = JobOptions()
    """How the run's Pod is made."""

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
