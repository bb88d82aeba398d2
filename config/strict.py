"""The base of every schema: unknown keys are errors, numbers are finite, values are frozen, rules name their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, ClassVar, Final, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from config.findings import Problem, dotted

Rule: TypeAlias = Callable[..., Iterable[Problem]]
"""Something that holds between the fields of one model; yields where and how it does not."""


class BrokenRulesError(ValueError):
    """Every broken rule of one model, with paths that begin at that model."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("; ".join(f"{dotted(p.path)}: {p.message}" if p.path else p.message for p in self.problems))


class Strict(BaseModel):
    """Forbids unknown keys, NaN and infinities, and later changes; its `rules` hold between its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        if not self.rules:
            return self
        broken = [problem for rule in self.rules for problem in rule(self)]
        if broken:
            raise BrokenRulesError(broken)
        return self


NAME_PATTERN: Final = r"^[a-z][a-z0-9_]{0,31}$"
NAME_RULE: Final = "a name: lower-case letters, digits and _, a letter first, at most 32 characters"

# Strict, because a number in quotes, or true where a number is meant, is a slip to report and not a value to guess.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]

Name = Annotated[str, Field(pattern=NAME_PATTERN, description=NAME_RULE)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Positive = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)]
NotNegative = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]
PerUnit = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
