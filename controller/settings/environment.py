"""Settings read from environment variables: the base class, the types of variables, and messages about invalid ones.

A variable is the class's prefix and the field's name in capitals. Empty is as good as unset.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

PREFIX: Final = "SESSION_POLICY_"


class InvalidSettingsError(ValueError):
    """The environment does not configure the controller; the message has one line for each problem."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class InvalidVariableError(ValueError):
    """A variable is wrong in several ways; each line follows its name and a colon."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Required:
    """Marks a field that has to be set.

    Attributes:
        rule: the message if it is not set; follows the variable's name.
    """

    rule: str


class EnvironmentSettings(BaseSettings):
    """Immutable settings. Constructed, they take the values given; :meth:`read` takes them from an environment."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The values given only: the caller of :meth:`read` alone decides which environment is read."""
        return (init_settings,)

    @classmethod
    def read(cls, environment: Mapping[str, str], **given: Any) -> Self:
        """The settings in an environment.

        Args:
            environment: of the process.
            given: fields that are not read from it.

        Raises:
            InvalidSettingsError: a variable is missing or wrong. No value that may be secret is repeated.
        """
        stripped = {name: value.strip() for name, value in environment.items()}
        unread = {cls.variable(field) for field in given}
        source = EnvSettingsSource(cls)
        source.env_vars = {name.lower(): text for name, text in stripped.items() if text and name not in unread}
        try:
            return cls(**source() | given)
        except ValidationError as error:
            raise InvalidSettingsError(cls._problems(error)) from None  # pydantic's own words repeat the value

    @classmethod
    def variable(cls, field: str) -> str:
        """The name of a field's variable."""
        return f"{cls.model_config.get('env_prefix', '')}{field}".upper()

    @classmethod
    def _problems(cls, error: ValidationError) -> list[str]:
        problems = []
        for each in error.errors(include_url=False, include_input=False):
            field = str(each["loc"][0])
            cause = each.get("ctx", {}).get("error")
            if isinstance(cause, InvalidVariableError):
                problems += [f"{cls.variable(field)}: {problem}" for problem in cause.problems]
            elif cause is not None:
                problems.append(f"{cls.variable(field)} {cause}")
            else:
                rules = [mark.rule for mark in cls.model_fields[field].metadata if isinstance(mark, Required)]
                problems.append(f"{cls.variable(field)} {rules[0] if rules else each['msg']}")
        return problems


# --- types of variables ----------------------------------------------------------------------------------------------


def _from_text(parse: Callable[[str], Any]) -> BeforeValidator:
    """Parses what a variable says; a value that is given in code is taken as it is."""
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _json_strings(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    # The value is not repeated: a variable may hold a password.
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError('must be a JSON object of strings, such as {"key": "value"}')
    return found


def whole_number(lowest: int, highest: int | None = None) -> BeforeValidator:
    """A whole number of decimal digits within these bounds."""

    def parse(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else -1
        if number < lowest or (highest is not None and number > highest):
            bounds = f"from {lowest}" if highest is None else f"from {lowest} to {highest}"
            raise ValueError(f"must be a whole number {bounds}, not {text!r}")
        return number

    return _from_text(parse)


def one_of(*allowed: str) -> BeforeValidator:
    """One of these words."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}, not {text!r}")
        return text

    return _from_text(parse)


Flag = Annotated[bool, _from_text(_flag)]
"""``true`` or ``false``."""

Names = Annotated[tuple[str, ...], NoDecode, _from_text(_names)]
"""Names, separated by commas."""

Strings = Annotated[Mapping[str, str], NoDecode, _from_text(_json_strings)]
"""A JSON object of strings."""
