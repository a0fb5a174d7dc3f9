"""Names that job, controller and users share: API group, labels, annotations, environment variables."""

from __future__ import annotations

import hashlib
import re

GROUP = "sessionpolicy.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "SessionPolicy"
PLURAL = "sessionpolicies"
SINGULAR = "sessionpolicy"
SHORT_NAME = "spol"

REVOCATION_KIND = "SessionRevocation"
REVOCATION_PLURAL = "sessionrevocations"
REVOCATION_SINGULAR = "sessionrevocation"
REVOCATION_SHORT_NAME = "srev"

FIELD_MANAGER = "session-policy-operator"
"""Field manager of what the controller applies, and the component that its Events come from."""

POLICY_LABEL = f"{GROUP}/policy"
"""On CronJobs, Jobs and Pods: the policy's name, shortened like the CronJob's."""

REVOCATION_LABEL = f"{GROUP}/revocation"
"""On the Job and the Pods of a SessionRevocation: its UID. Its name may contain personal data."""

RUN_REQUEST_ANNOTATION = f"{GROUP}/run-requested-at"
"""On a SessionPolicy: any new value starts one run now."""

SPEC_ENV = "SESSION_POLICY"
"""Environment variable of the job's container that holds the policy's manifest as JSON."""

REVOCATION_ENV = "SESSION_POLICY_REVOCATION"
"""Environment variable of a SessionRevocation's container: whose sessions end, as JSON."""

DATABASE_URL_ENV = "DATABASE_URL"
REDIS_URL_ENV = "REDIS_URL"
JOB_UID_ENV = "SESSION_POLICY_JOB_UID"
POD_NAME_ENV = "SESSION_POLICY_POD_NAME"
POD_UID_ENV = "SESSION_POLICY_POD_UID"
NAMESPACE_ENV = "SESSION_POLICY_NAMESPACE"
NODE_NAME_ENV = "SESSION_POLICY_NODE_NAME"
JOB_INDEX_ENV = "JOB_COMPLETION_INDEX"
"""Set by Kubernetes in the containers of an Indexed Job: which of its Pods this is, from 0."""
JOB_NAME_ENV = "SESSION_POLICY_JOB_NAME"
CRON_JOB_NAME_ENV = "SESSION_POLICY_CRON_JOB_NAME"
"""Where a process runs, by the downward API: the resource attributes of its telemetry."""
ALERT_OPERATIONS_URLS_ENV = "ALERT_OPERATIONS_URLS"
ALERT_SECURITY_URLS_ENV = "ALERT_SECURITY_URLS"
LOG_HASH_KEY_ENV = "LOG_HASH_KEY"
LOG_DIRECTORY_ENV = "LOG_DIRECTORY"
LOG_DIRECTORY = "/var/log/session-policy"
"""Where spec.logs.volumeClaim is mounted in the job's container."""
CONTAINER_NAME = "session-policy"
"""Name of the job's container."""
TERMINATION_MESSAGE_PATH = "/dev/termination-log"

# A CronJob's name plus "-" and the 10 or 11 characters Kubernetes appends must fit a 63-character Pod host name.
_MAX_CRON_JOB_NAME = 52
_DIGEST_LENGTH = 8
_HEAD_LENGTH = _MAX_CRON_JOB_NAME - _DIGEST_LENGTH - 1
_SHORTENED = re.compile(rf".{{{_HEAD_LENGTH}}}-[0-9a-f]{{{_DIGEST_LENGTH}}}")


def cron_job_name(policy_name: str) -> str:
    """The name of a policy's CronJob, also used as its label value.

    It is the policy's own name where that fits the 52 characters a CronJob may have, else its beginning and a digest
    of the whole, so that two long names that begin alike stay apart.
    """
    # A label value may hold dots, and so may a CronJob's name; only the length has to be cut.
    if len(policy_name) <= _MAX_CRON_JOB_NAME and not _SHORTENED.fullmatch(policy_name):
        return policy_name
    digest = hashlib.sha256(policy_name.encode()).hexdigest()[:_DIGEST_LENGTH]
    # Filled up again: every shortened name has the same form, by which it is told from a name that is its own.
    head = policy_name[:_HEAD_LENGTH].rstrip("-.").ljust(_HEAD_LENGTH, "0")
    return f"{head}-{digest}"
