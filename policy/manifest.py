"""Parsing and validation of SessionPolicy and SessionRevocation manifests."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policy.model import Model
from policy.names import API_VERSION, KIND, REVOCATION_KIND
from policy.report import Count
from policy.revocation import RevocationTarget, SessionRevocationSpec
from policy.spec import SessionPolicySpec

# What a YAML parser quotes of the text, but for single characters and names of tokens such as '<scalar>'.
_QUOTED = re.compile(r"'(?!<)[^']{2,}'")


M = TypeVar("M", bound=Model)


class InvalidResourceError(ValueError):
    """A resource cannot be used.

    Attributes:
        problems: one line for each problem, beginning with the field, e.g. ``spec.cleanupBatchSize: …``.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class InvalidPolicyError(InvalidResourceError):
    """The policy cannot be used."""


class InvalidRevocationError(InvalidResourceError):
    """The revocation cannot be used."""


class Metadata(BaseModel):
    """What is used of a resource's metadata; the API server fills in much more."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
    namespace: Annotated[str, Field(min_length=1, max_length=63)] = "default"
    generation: Count | None = None


class SessionPolicy(Model):
    """A SessionPolicy resource without its status."""

    api_version: Literal["sessionpolicy.dev/v1alpha1"] = API_VERSION  # type: ignore[assignment]
    kind: Literal["SessionPolicy"] = KIND  # type: ignore[assignment]
    metadata: Metadata
    spec: SessionPolicySpec


class SessionRevocation(Model):
    """A SessionRevocation resource without its status."""

    api_version: Literal["sessionpolicy.dev/v1alpha1"] = API_VERSION  # type: ignore[assignment]
    kind: Literal["SessionRevocation"] = REVOCATION_KIND  # type: ignore[assignment]
    metadata: Metadata
    spec: SessionRevocationSpec


def parse_policy(resource: Mapping[str, Any]) -> SessionPolicy:
    """The policy in a decoded manifest; its status, if any, is ignored.

    Raises:
        InvalidPolicyError: a field is unknown, missing, of the wrong type or out of range.
    """
    return _parse(SessionPolicy, resource, "policy", InvalidPolicyError)


def parse_revocation(resource: Mapping[str, Any]) -> SessionRevocation:
    """The revocation in a decoded manifest; its status, if any, is ignored.

    Raises:
        InvalidRevocationError: a field is unknown, missing, of the wrong type or out of range.
    """
    return _parse(SessionRevocation, resource, "revocation", InvalidRevocationError)


def parse_target(text: str) -> RevocationTarget:
    """Whose sessions to revoke, from the container's environment.

    Raises:
        InvalidRevocationError: the text is not that.
    """
    return _validate(RevocationTarget, text, InvalidRevocationError)


def _parse(model: type[M], resource: Mapping[str, Any], what: str, refusal: type[InvalidResourceError]) -> M:
    try:
        text = json.dumps({k: v for k, v in resource.items() if k != "status"}, default=str)
    except (TypeError, ValueError, RecursionError):
        raise refusal([f"the {what} is not valid JSON: a key is not a string, or references form a loop"]) from None
    return _validate(model, text, refusal)


def _validate(model: type[M], text: str, refusal: type[InvalidResourceError]) -> M:
    try:
        # Strict JSON, by the names users write: what the API server would refuse is refused here as well.
        return model.model_validate_json(text, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise refusal([_problem(e) for e in error.errors(include_url=False)]) from error


def load_policy(text: str) -> SessionPolicy:
    """The one SessionPolicy in a YAML or JSON text that may hold other resources too.

    Raises:
        InvalidPolicyError: the text is not YAML, holds no SessionPolicy or several, or the policy is invalid.
    """
    documents = _documents(text)
    policies = [d for d in documents if isinstance(d, dict) and d.get("kind") == KIND]
    if len(policies) != 1:
        raise InvalidPolicyError([f"expected one resource of kind {KIND} ({API_VERSION}), found {len(policies)}"])
    return parse_policy(policies[0])


def _documents(text: str) -> list[Any]:
    # JSON is YAML as well, but the container's policy always is, and need not wait for the other parser.
    with suppress(ValueError, RecursionError):
        return [json.loads(text)]
    import yaml  # noqa: PLC0415

    try:
        return [d for d in yaml.safe_load_all(text) if d is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = _QUOTED.sub("'…'", str(getattr(error, "problem", "it holds a character that YAML does not allow")))
        raise InvalidPolicyError([f"the policy is not valid YAML{where}: {problem}"]) from None
    except (ValueError, RecursionError):
        raise InvalidPolicyError(
            ["the policy is not valid YAML: an invalid date or number, or nesting too deep; quote text"]
        ) from None


def _problem(error: Any) -> str:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown field; check its spelling (`session-policy crd` prints the schema)"
    elif error["type"] == "missing":
        message = "required field is missing"
    # The value itself is not repeated: a URL pasted into the wrong field may hold a password.
    return f"{field}: {message}" if field else message
