"""Reports that containers leave in their termination message. What a container says is untrusted."""

from __future__ import annotations

from typing import Final, TypeVar

from pydantic import ValidationError

from policy.model import Model

M = TypeVar("M", bound=Model)

# What the kubelet keeps of a termination message.
_MAX_BYTES: Final = 4096


def parse_report(model: type[M], message: str) -> M | None:
    """The report in a termination message; None if it is anything but a valid report of this model."""
    if len(message.encode(errors="replace")) > _MAX_BYTES:
        return None
    try:
        return model.model_validate_json(message, strict=True, by_alias=True, by_name=False)
    except ValidationError:
        return None
