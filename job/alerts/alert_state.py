"""Which problems were found and sent by earlier runs, as JSON that any store can keep."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

_MAX_PROBLEMS = 100


class ProblemRecord(BaseModel):
    """What is stored of one problem.

    Attributes:
        since: when a run first found it.
        count: its size when it was last sent.
        sent_at: when it was last sent; None if no channel could be reached yet.
        audience: to whom it was sent.
        gone_since: since when no run has found it; None while it persists. Kept for a while, for it may come back.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    since: AwareDatetime
    count: Annotated[int, Field(ge=0)] = 0
    sent_at: Annotated[AwareDatetime | None, Field(alias="told_at")] = None
    audience: Annotated[str, Field(max_length=16)] = "operations"
    gone_since: AwareDatetime | None = None


class AlertState(BaseModel):
    """The stored problems of one policy.

    Attributes:
        updated_at: when it was written; of several copies the latest counts.
        problems: by reason.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    updated_at: AwareDatetime = datetime(1970, 1, 1, tzinfo=UTC)
    problems: Annotated[dict[str, ProblemRecord], Field(max_length=_MAX_PROBLEMS)] = {}

    def to_text(self) -> str:
        """As JSON, to be stored."""
        return self.model_dump_json(by_alias=True)

    @classmethod
    def from_text(cls, text: str | bytes | None) -> AlertState | None:
        """From stored JSON; None if there is none or it is invalid."""
        try:
            return cls.model_validate_json(text) if text else None
        except ValidationError:
            return None


EMPTY_STATE = AlertState()
"""State before the first alert."""
