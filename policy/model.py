"""The base class of all models: immutable, camelCase, strict about unknown fields, with rules in CEL and Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel


@dataclass(frozen=True, slots=True)
class Rule:
    """A validation rule over several fields, as CEL for the API server and as Python.

    Attributes:
        cel: the rule as a CEL expression over ``self``, for ``x-kubernetes-validations``.
        message: what a person reads when it is broken; names the field and the remedy.
        holds: the same rule over the Python model. A test holds the two to the same verdicts.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]


class Model(BaseModel):
    """Base of the models of spec, status and report."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        # What was refused may be a URL with a password, or whatever a compromised container reported.
        hide_input_in_errors=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        broken = [rule.message for rule in self.rules if not rule.holds(self)]
        if broken:
            raise ValueError("; ".join(broken))
        return self

    def to_json_object(self) -> dict[str, Any]:
        """The model as the JSON object Kubernetes stores: camelCase, without fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
