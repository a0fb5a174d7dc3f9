"""What earlier runs have told, as text for any store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

_MOST_RECORDS = 100


class ProblemRecord(BaseModel):
    """What is remembered of one problem.

    Attributes:
        since: when it was first met.
        count: how much of it there was when it was last told.
        told_at: when it was last told; None if nobody could be reached yet.
        audience: who was told.
        gone_since: since when no run has met it; remembered for a while, for it may come back. None while it stands.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    since: AwareDatetime
    count: Annotated[int, Field(ge=0)] = 0
    told_at: AwareDatetime | None = None
    audience: Annotated[str, Field(max_length=16)] = "operations"
    gone_since: AwareDatetime | None = None


class AlertState(BaseModel):
    """What is remembered of one policy's problems, by reason.

    Attributes:
        updated_at: when it was written; of several copies the latest counts.
        problems: by reason.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    updated_at: AwareDatetime = datetime(1970, 1, 1, tzinfo=UTC)
    problems: Annotated[dict[str, ProblemRecord], Field(max_length=_MOST_RECORDS)] = {}

    def to_text(self) -> str:
        """As a store keeps it."""
        return self.model_dump_json()

    @classmethod
    def from_text(cls, text: str | bytes | None) -> AlertState | None:
        """From a store; None where there is nothing that can be read."""
        try:
            return cls.model_validate_json(text) if text else None
        except ValidationError:
            return None


EMPTY_STATE = AlertState()
"""No run has told anything yet."""
