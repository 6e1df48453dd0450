"""Tasks are data: a name, the label columns it reads, their classes and its loss weight.

A task's label is one column, or the product of several (`joint` = station x metastasis). MT-IDS's three tasks are the default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, model_validator

from mtids_dist.stations import MEDIASTINAL, MEDIASTINAL_ZONES, ZONE_OF

MISSING = -1
"""The class index of a label that is unknown, or outside the task's classes: its loss is masked."""

TAXONOMIES: Mapping[str, Mapping[str, str]] = {
    "stations": {station: station for station in MEDIASTINAL},
    "zones": {station: zone.value for station, zone in ZONE_OF.items() if zone in MEDIASTINAL_ZONES},
    "binary": {"0": "0", "1": "1"},
}
"""Ready lists of classes: stored value -> class name."""


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _as_strings(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_as_strings(v) for v in value)
    return str(value) if isinstance(value, int) else value


class Task(BaseModel):
    """One task: `column` (or columns, whose product is the label), the `classes` of each, and its `loss_weight`.

    `classes` is a taxonomy (`stations`, `zones`, `binary`) or a list of values; for a product, one of these per column.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        min_length=1, description="label column(s) of the store"
    )
    classes: Annotated[str | tuple[str | tuple[str, ...], ...], BeforeValidator(_as_strings)] = Field(
        description="stations | zones | binary | a list of values; for a product of columns, one of these per column"
    )
    loss_weight: PositiveFloat = Field(1.0, description="factor on this task's loss before balancing")

    @model_validator(mode="after")
    def _one_class_list_per_column(self) -> Task:
        parts = self._parts()
        if len(parts) != len(self.column):
            raise ValueError(f"{len(self.column)} columns need {len(self.column)} lists of classes, found {len(parts)}")
        for part in parts:
            if isinstance(part, str) and part not in TAXONOMIES:
                raise ValueError(f"unknown taxonomy {part!r}, allowed: {', '.join(TAXONOMIES)} or a list of values")
            if len(set(part)) < 2 or (not isinstance(part, str) and len(set(part)) < len(part)):
                raise ValueError(f"classes need at least two different values, found {part}")
        return self

    def _parts(self) -> tuple[str | tuple[str, ...], ...]:
        if len(self.column) == 1:
            return (self.classes,)  # type: ignore[return-value]  # a flat list of values: no nesting for one column
        return (self.classes,) if isinstance(self.classes, str) else self.classes

    @property
    def value_maps(self) -> tuple[Mapping[str, str], ...]:
        """For each column: stored value -> class name."""
        return tuple(TAXONOMIES[part] if isinstance(part, str) else {v: v for v in part} for part in self._parts())

    @property
    def column_classes(self) -> tuple[tuple[str, ...], ...]:
        """For each column: its class names, in order."""
        return tuple(tuple(dict.fromkeys(values.values())) for values in self.value_maps)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The task's class names; a product reads `4R+1`. The last column varies fastest."""
        return tuple("+".join(names) for names in product(*self.column_classes))

    @property
    def num_classes(self) -> int:
        """How many classes the task's head has."""
        return prod(len(names) for names in self.column_classes)

    def encode(self, columns: Mapping[str, Sequence[Any]]) -> npt.NDArray[np.int64]:
        """Class indices [rows] of the task's label; `MISSING` where a part is unknown or outside the task's classes."""
        label = np.zeros(len(columns[self.column[0]]), dtype=np.int64)
        for column, values, names in zip(self.column, self.value_maps, self.column_classes, strict=True):
            index = {value: names.index(name) for value, name in values.items()}
            part = np.array([MISSING if v is None else index.get(str(v), MISSING) for v in columns[column]], dtype=np.int64)
            label = np.where((label == MISSING) | (part == MISSING), MISSING, label * len(names) + part)
        return label


MTIDS_TASKS: Mapping[str, Task] = {
    "joint": Task(column=("station", "metastasis"), classes=("stations", "binary")),
    "region": Task(column=("station",), classes="stations"),
    "metastasis": Task(column=("metastasis",), classes="binary"),
}
"""The three tasks of MT-IDS over the 11 mediastinal stations."""
