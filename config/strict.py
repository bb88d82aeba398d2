"""The base of every schema: unknown keys are errors, numbers are finite, values are frozen."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Forbids unknown keys, NaN and infinities, and later changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Name = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9_]{0,31}$", description="lower case letters, digits and _, beginning with a letter"),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
PerUnit = Annotated[float, Field(ge=0, le=1)]
