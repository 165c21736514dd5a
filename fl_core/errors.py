"""Errors of data and models; each names the cause and the mend."""

from __future__ import annotations

__all__ = ["DataError", "ModelError"]


class DataError(ValueError):
    """Input data cannot be used.

    Attributes:
        hint: One sentence that says how to mend it.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ModelError(ValueError):
    """A model file or a parameter vector does not fit.

    Attributes:
        hint: One sentence that says how to mend it.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
