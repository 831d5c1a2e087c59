"""What every section of an ini file is made of: its base class, its kinds of values, its keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Sex = Literal["female", "male"]
CellSex = Literal["female", "male", "both"]
Split = Literal["train", "validation", "test"]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
MOST_BINS = 1000
CountOrZero = Annotated[int, Field(ge=0)]


def key(description: str, default=..., **constraints):
    """A key with its explanation; without a default it must be in the ini file."""
    return Field(default, description=description, **constraints)


def refuse_empty_or_repeated(name: str, value: str | tuple[str, ...]) -> None:
    """Refuse a tuple of names that is empty or holds one twice."""
    if isinstance(value, tuple) and (not value or len(set(value)) < len(value)):
        raise ValueError(f"{name} = {value!r}: name at least one, and each once")


class Section(BaseModel):
    """A section of an ini file: frozen, strict about types, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
