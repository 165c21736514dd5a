"""Settings that travel in signed offers: strict round trips to plain dicts, and range checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from fl_core.errors import ModelError

__all__ = [
    "Settings",
    "check_choice",
    "check_flag",
    "check_integer",
    "check_integers",
    "check_number",
]


class Settings:
    """Strict round trip of a frozen dataclass of scalars and integer tuples to plain dicts."""

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values; tuples become lists."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make the settings from `to_dict` output; a missing key takes its default.

        Raises:
            ModelError: an unknown key, a missing key without default, a wrong type or range.
        """
        known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ModelError(
                f"{cls.__name__} has no setting {unknown[0]!r}", hint=f"known: {', '.join(known)}"
            )
        missing = [
            f.name
            for f in known.values()
            if f.default is dataclasses.MISSING and f.name not in values
        ]
        if missing:
            raise ModelError(f"{cls.__name__} needs the setting {missing[0]!r}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def check_integer(owner: str, name: str, value: object, *, low: int, high: int) -> None:
    """Refuse a setting that is not a whole number from `low` to `high`.

    Raises:
        ModelError: names the setting and the range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ModelError(
            f"{owner}.{name} is {value!r}", hint=f"use a whole number from {low} to {high}"
        )


def check_number(owner: str, name: str, value: object, *, low: float, high: float) -> None:
    """Refuse a setting that is not a number from `low` to `high`; NaN is none.

    Raises:
        ModelError: names the setting and the range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ModelError(f"{owner}.{name} is {value!r}", hint=f"use a number from {low} to {high}")


def check_integers(owner: str, name: str, value: object, *, at_most: int, high: int) -> None:
    """Refuse a setting that is not a tuple of at most `at_most` positive whole numbers.

    Raises:
        ModelError: names the setting and the range.
    """
    if not isinstance(value, tuple) or len(value) > at_most:
        raise ModelError(
            f"{owner}.{name} is {value!r}", hint=f"use a list of at most {at_most} whole numbers"
        )
    for item in value:
        check_integer(owner, name, item, low=1, high=high)


def check_choice(owner: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a setting that is none of the texts `choices`.

    Raises:
        ModelError: names the setting and the choices.
    """
    if not isinstance(value, str) or value not in choices:
        raise ModelError(
            f"{owner}.{name} is {value!r}", hint=f"use one of {', '.join(map(repr, choices))}"
        )


def check_flag(owner: str, name: str, value: object) -> None:
    """Refuse a setting that is neither true nor false.

    Raises:
        ModelError: names the setting.
    """
    if not isinstance(value, bool):
        raise ModelError(f"{owner}.{name} is {value!r}", hint="use true or false")
