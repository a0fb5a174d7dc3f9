"""A client for what this controller needs of the Kubernetes API. Kopf watches; everything else goes through here."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from controller.api.clock import ServerClock
from controller.api.login import is_in_cluster
from policy.names import FIELD_MANAGER, GROUP, PLURAL, POLICY_LABEL, REVOCATION_PLURAL, VERSION
from policy.report import printable

Resource = dict[str, Any]

_TIMEOUT_SECONDS: Final = 15.0
# A Lease is renewed every few seconds: a second attempt is better than a long wait for the first.
_LEASE_TIMEOUT_SECONDS: Final = 3.0
_CONNECT_SECONDS: Final = 5.0
PAGE_SIZE: Final = 100
"""Objects in one page of a list. A page of CronJobs is 1 MB of JSON, and takes far more memory while it is parsed."""
_MAX_WORDS: Final = 400
_MAX_EVENTS: Final = 50

_POLICIES: Final = f"/apis/{GROUP}/{VERSION}"
_BATCH: Final = "/apis/batch/v1"
_CORE: Final = "/api/v1"
_COORDINATION: Final = "/apis/coordination.k8s.io/v1"

_JSON: Final = "application/json"
_JSON_PATCH: Final = "application/json-patch+json"
_APPLY_PATCH: Final = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects that the controller watches.

    Attributes:
        api: path of its API group and version.
        plural: its name in paths.
        selector: label selector of those that it watches; empty for all.
    """

    api: str
    plural: str
    selector: str = ""


POLICIES: Final = Kind(_POLICIES, PLURAL)
REVOCATIONS: Final = Kind(_POLICIES, REVOCATION_PLURAL)
CRON_JOBS: Final = Kind(_BATCH, "cronjobs", POLICY_LABEL)
JOBS: Final = Kind(_BATCH, "jobs", POLICY_LABEL)
PODS: Final = Kind(_CORE, "pods", POLICY_LABEL)

KINDS: Final = (PODS, JOBS, CRON_JOBS, POLICIES, REVOCATIONS)
"""In the order in which to list them: Pods before their Jobs, whose outcome is judged from them."""


class KubeError(Exception):
    """A request failed; the message is the API server's own, on one line."""


class NoClusterError(Exception):
    """Neither a service account nor a usable kubeconfig tells how to reach the API server."""


class NotFoundError(KubeError):
    """There is no such object, or its namespace is being deleted."""


class AlreadyExistsError(KubeError):
    """There is an object of that name already."""


class ConflictError(KubeError):
    """The object is no longer the one that was read."""


class ForbiddenError(KubeError):
    """Not allowed: by RBAC, a quota, Pod Security or an admission policy."""


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list.

    Attributes:
        version: resourceVersion of the list; that of its first page holds for all.
        items: the objects.
    """

    version: str
    items: list[Resource]


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for which an object was refused: the field, and what is wrong with it in the server's words."""

    field: str
    message: str


class InvalidError(KubeError):
    """The server refused the object.

    Attributes:
        causes: what is wrong, by field; may be empty.
    """

    def __init__(self, message: str, causes: tuple[Cause, ...]) -> None:
        super().__init__(message)
        self.causes = causes


class UnavailableError(KubeError):
    """The server could not be reached, did not answer in time, or is overloaded: retry later.

    Attributes:
        retry_after_seconds: its Retry-After header; 0 if there was none.
    """

    def __init__(self, message: str, retry_after_seconds: float = 0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NotLeaderError(UnavailableError):
    """A write was not sent, because another controller may be the leader by now."""


RequestObserver = Callable[[str, str, str], None]
"""Called for every request with its verb, its resource, and the HTTP status or ``error`` for no answer."""


def _unobserved(_verb: str, _resource: str, _code: str) -> None:
    pass


class Kube:
    """A connection to the API server; objects are plain dictionaries."""

    def __init__(self, api: client.ApiClient, observe: RequestObserver = _unobserved) -> None:
        self._api = api
        self._observe = observe
        self._seconds_left: Callable[[], float] = lambda: math.inf
        self._has_answered = False
        self._clock = ServerClock()

    @classmethod
    async def connect(cls, observe: RequestObserver = _unobserved) -> Self:
        """Use the Pod's service account, or the kubeconfig outside a cluster.

        Args:
            observe: called for every request.

        Raises:
            NoClusterError: there is neither.
        """
        configuration = client.Configuration()
        configuration.disable_strict_ssl_verification = True  # as LenientConnectionInfo
        if is_in_cluster():
            config.load_incluster_config(client_configuration=configuration)
        else:
            try:
                await config.load_kube_config(client_configuration=configuration)
            except (config.ConfigException, OSError) as error:
                raise NoClusterError(f"no usable kubeconfig, see KUBECONFIG: {error}") from error
        configuration.retries = None  # the work queue retries, with its own back-off
        api = client.ApiClient(configuration)
        api.user_agent = FIELD_MANAGER
        return cls(api, observe)

    @property
    def has_answered(self) -> bool:
        """Whether the API server has ever answered."""
        return self._has_answered

    def guard_writes(self, seconds_left: Callable[[], float]) -> None:
        """Call this before every write except those of Leases; see `Leadership.seconds_left`."""
        self._seconds_left = seconds_left

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    def now(self) -> datetime:
        """The time by the API server's clock, as of its last answer."""
        return self._clock.now()

    async def missing_definitions(self) -> list[str]:
        """Names of our CustomResourceDefinitions that are not installed, or not served yet."""
        try:
            served = await self._request("GET", _POLICIES)
        except NotFoundError:
            served = {"resources": []}
        known = {resource["name"] for resource in served["resources"]}
        return [f"{plural}.{GROUP}" for plural in (PLURAL, REVOCATION_PLURAL) if plural not in known]

    async def list_pages(self, kind: Kind, namespace: str | None = None, selector: str = "") -> AsyncIterator[Page]:
        """All objects of a kind, in one namespace or in all, page by page.

        Not with resourceVersion=0: the server's cache may be older than the event that led here.

        Args:
            kind: the kind; its own selector applies.
            namespace: None for all.
            selector: labels to select by instead of the kind's own.
        """
        selector = selector or kind.selector
        query = {"limit": str(PAGE_SIZE)} | ({"labelSelector": selector} if selector else {})
        token = ""
        while True:
            page = await self._request(
                "GET", _path(kind.api, namespace, kind.plural), query | ({"continue": token} if token else {})
            )
            for item in page["items"] or []:  # some servers answer null for no objects
                # In lists of the built-in kinds, only the list has them.
                item.setdefault("apiVersion", page["apiVersion"])
                item.setdefault("kind", page["kind"].removesuffix("List"))
            yield Page(page["metadata"]["resourceVersion"], page["items"] or [])
            token = page["metadata"].get("continue", "")
            if not token:
                return

    async def get_policy(self, namespace: str, name: str) -> Resource | None:
        """The policy, or None."""
        return await self._get(_path(_POLICIES, namespace, PLURAL, name))

    async def create_policy(self, manifest: Resource) -> Resource:
        """Create a policy."""
        return await self._request(
            "POST", _path(_POLICIES, manifest["metadata"]["namespace"], PLURAL), _MANAGED, manifest
        )

    async def delete_policy(self, namespace: str, name: str) -> None:
        """Delete a policy; nothing happens if there is none."""
        with suppress(NotFoundError):
            await self._request("DELETE", _path(_POLICIES, namespace, PLURAL, name))

    async def replace_policy_status(self, policy: Resource, status: Mapping[str, Any]) -> Resource:
        """Write the status and return the policy as stored.

        Raises:
            ConflictError: the policy has changed since it was read.
        """
        return await self._replace_status(PLURAL, policy, status)

    async def get_revocation(self, namespace: str, name: str) -> Resource | None:
        """The revocation, or None."""
        return await self._get(_path(_POLICIES, namespace, REVOCATION_PLURAL, name))

    async def replace_revocation_status(self, revocation: Resource, status: Mapping[str, Any]) -> Resource:
        """As :meth:`replace_policy_status`."""
        return await self._replace_status(REVOCATION_PLURAL, revocation, status)

    async def delete_revocation(self, namespace: str, name: str, uid: str) -> None:
        """Delete the revocation of this UID, and no other; its Job and Pods follow.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it is another one.
        """
        path = _path(_POLICIES, namespace, REVOCATION_PLURAL, name)
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        await self._request("DELETE", path, body=options)

    async def _replace_status(self, plural: str, resource: Resource, status: Mapping[str, Any]) -> Resource:
        metadata = resource["metadata"]
        path = _path(_POLICIES, metadata["namespace"], plural, metadata["name"]) + "/status"
        patch = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
            {"op": "add", "path": "/status", "value": status},
        ]
        return await self._request("PATCH", path, _MANAGED, patch, content_type=_JSON_PATCH)

    async def get_cron_job(self, namespace: str, name: str) -> Resource | None:
        """The CronJob, or None."""
        return await self._get(_path(_BATCH, namespace, "cronjobs", name))

    async def create_cron_job(self, manifest: Resource) -> Resource:
        """Create the CronJob. By POST, not by apply, which would silently adopt one that somebody just made.

        Raises:
            AlreadyExistsError: there is one of that name.
            InvalidError: the server refuses it.
        """
        return await self._request(
            "POST", _path(_BATCH, manifest["metadata"]["namespace"], "cronjobs"), _MANAGED, manifest
        )

    async def apply_cron_job(self, manifest: Resource, uid: str) -> Resource:
        """Apply the manifest to the CronJob of this UID, and to no other.

        Raises:
            ConflictError: the CronJob is gone, or is another one.
            InvalidError: the server refuses it.
        """
        metadata = manifest["metadata"]
        path = _path(_BATCH, metadata["namespace"], "cronjobs", metadata["name"])
        body = {**manifest, "metadata": {**metadata, "uid": uid}}
        return await self._request("PATCH", path, {**_MANAGED, "force": "true"}, body, content_type=_APPLY_PATCH)

    async def patch_cron_job(self, namespace: str, name: str, patch: list[dict[str, Any]]) -> Resource:
        """Send a JSON patch.

        Raises:
            ConflictError: the patch names another resourceVersion than the CronJob's.
        """
        return await self._request(
            "PATCH", _path(_BATCH, namespace, "cronjobs", name), _MANAGED, patch, content_type=_JSON_PATCH
        )

    async def get_job(self, namespace: str, name: str) -> Resource | None:
        """The Job, or None."""
        return await self._get(_path(_BATCH, namespace, "jobs", name))

    async def resume_job(self, namespace: str, name: str, uid: str) -> None:
        """Start the suspended Job of this UID, and no other.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it is another one.
        """
        patch = [
            {"op": "replace", "path": "/metadata/uid", "value": uid},
            {"op": "replace", "path": "/spec/suspend", "value": False},
        ]
        path = _path(_BATCH, namespace, "jobs", name)
        await self._request("PATCH", path, _MANAGED, patch, content_type=_JSON_PATCH)

    async def create_job(self, manifest: Resource) -> Resource:
        """Create a Job.

        Raises:
            AlreadyExistsError: there is one of that name.
        """
        return await self._request("POST", _path(_BATCH, manifest["metadata"]["namespace"], "jobs"), _MANAGED, manifest)

    async def list_warnings(self, namespace: str, uid: str) -> list[Resource]:
        """The Events of type Warning on the object of this UID."""
        query = {"fieldSelector": f"involvedObject.uid={uid},type=Warning", "limit": str(_MAX_EVENTS)}
        found = await self._request("GET", _path(_CORE, namespace, "events"), query)
        items: list[Resource] = found["items"]
        return items

    async def create_event(self, manifest: Resource) -> None:
        """Create an Event."""
        await self._request("POST", _path(_CORE, manifest["metadata"]["namespace"], "events"), _MANAGED, manifest)

    async def get_lease(self, namespace: str, name: str) -> Resource | None:
        """The Lease, or None."""
        try:
            return await self._lease_request("GET", _path(_COORDINATION, namespace, "leases", name))
        except NotFoundError:
            return None

    async def create_lease(self, lease: Resource) -> Resource:
        """Create a Lease.

        Raises:
            AlreadyExistsError: there is one of that name.
        """
        return await self._lease_request("POST", _path(_COORDINATION, lease["metadata"]["namespace"], "leases"), lease)

    async def replace_lease(self, lease: Resource) -> Resource:
        """Replace the Lease of this resourceVersion.

        Raises:
            ConflictError: it has changed since it was read.
            NotFoundError: it is gone.
        """
        metadata = lease["metadata"]
        path = _path(_COORDINATION, metadata["namespace"], "leases", metadata["name"])
        return await self._lease_request("PUT", path, lease)

    async def _lease_request(self, method: str, path: str, body: Resource | None = None) -> Resource:
        query = None if method == "GET" else _MANAGED
        # Leader election itself must not depend on being the leader.
        return await self._request(method, path, query, body, timeout_seconds=_LEASE_TIMEOUT_SECONDS, guarded=False)

    async def _get(self, path: str) -> Resource | None:
        try:
            return await self._request("GET", path)
        except NotFoundError:
            return None

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        content_type: str = _JSON,
        timeout_seconds: float = _TIMEOUT_SECONDS,
        guarded: bool = True,
    ) -> Resource:
        headers: dict[str, str] = {"Accept": _JSON, "Content-Type": content_type, "User-Agent": self._api.user_agent}
        code = ""
        try:
            await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            url = self._api.configuration.host + path + (f"?{urlencode(query)}" if query else "")
            left = self._seconds_left() if guarded and method != "GET" else math.inf
            if left <= 0:
                raise NotLeaderError("not sent: this controller may no longer be the leader")
            timeout = aiohttp.ClientTimeout(
                total=timeout_seconds,
                # Once connected, a request is sent at once; one that cannot connect in time is given up.
                connect=min(left, timeout_seconds),
                sock_connect=min(left, _CONNECT_SECONDS),
            )
            code = "error"
            response = await self._api.call_api(method, url, headers, body, _request_timeout=timeout)
            content = await response.read()
            code = str(response.status)
            self._has_answered = True
            self._clock.read(response.headers.get("Date", ""))
        except TimeoutError as error:
            raise UnavailableError(f"no answer from the API server within {timeout_seconds:g} s") from error
        except (aiohttp.ClientError, ApiException, OSError) as error:
            raise UnavailableError(f"cannot reach the API server{_where(error)} ({type(error).__name__})") from error
        finally:
            if code:
                self._observe(*_verb_and_resource(method, path), code)
        return _decode(response.status, response.headers, content)


_MANAGED: Final = {"fieldManager": FIELD_MANAGER}
_VERBS: Final = {"POST": "create", "PUT": "update"}
_NAMESPACE_PARTS: Final = 2


def _path(api: str, namespace: str | None, plural: str, name: str = "") -> str:
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{api}{scope}/{plural}" + (f"/{quote(name, safe='')}" if name else "")


def _where(error: Exception) -> str:
    """The address of the connection: a proxy's, where the environment names one."""
    return f" at {error.host}:{error.port}" if isinstance(error, aiohttp.ClientConnectorError) else ""


def _verb_and_resource(method: str, path: str) -> tuple[str, str]:
    """The request's verb and resource as Kubernetes names them; ``discovery`` for a group's list of resources.

    Names and namespaces are left out: the number of different results is small.
    """
    _, api, *parts = path.split("/")
    parts = parts[1:] if api == "api" else parts[2:]
    if parts[:1] == ["namespaces"] and len(parts) > _NAMESPACE_PARTS:
        parts = parts[_NAMESPACE_PARTS:]
    if not parts:
        return "get", "discovery"
    plural, *name = parts
    verb = _VERBS.get(method, method.lower()) if method != "GET" or name else "list"
    return verb, "/".join([plural, *name[1:]])


def _decode(status: int, headers: Mapping[str, str], content: bytes) -> Resource:
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    well = HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
    if not isinstance(answer, dict):
        if well:
            raise UnavailableError(f"the API server answered {status} with something that is not an object")
        answer = {}  # plain text: a path that is not served, or a proxy in between
    if well:
        return answer
    raise _error(status, headers, answer)


def _error(status: int, headers: Mapping[str, str], answer: Resource) -> KubeError:
    words = printable(str(answer.get("message", "no reason given")), _MAX_WORDS)
    error: KubeError
    match status:
        case HTTPStatus.NOT_FOUND:
            error = NotFoundError(words)
        case HTTPStatus.CONFLICT:
            error = AlreadyExistsError(words) if answer.get("reason") == "AlreadyExists" else ConflictError(words)
        case HTTPStatus.BAD_REQUEST | HTTPStatus.UNPROCESSABLE_ENTITY:
            error = _refusal(words, answer)
        case HTTPStatus.FORBIDDEN if _is_namespace_ending(answer):
            error = NotFoundError(words)
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            error = ForbiddenError(words)
        case _:
            delay = headers.get("Retry-After", "")
            message = f"the API server answered {status}: {words}"
            error = UnavailableError(message, float(delay) if delay.isdigit() else 0)
    return error


def _is_namespace_ending(answer: Resource) -> bool:
    """Whether an object was refused because its namespace is being deleted, not for lack of rights."""
    return any(cause.get("reason") == "NamespaceTerminating" for cause in _causes(answer))


def _causes(answer: Resource) -> list[Resource]:
    return (answer.get("details") or {}).get("causes") or []


def _refusal(words: str, answer: Resource) -> KubeError:
    causes = tuple(Cause(c.get("field", ""), c.get("message", "")) for c in _causes(answer))
    if any(cause.field == "metadata.uid" for cause in causes):
        return ConflictError(words)  # applied to one object, met another of the same name
    return InvalidError(words, causes)
