"""Settings of `prepare`, and what it tells when it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveFloat

from mtids_dist.settings import Settings


class PrepareConfig(Settings):
    """How crops are cut and cohorts are split."""

    crop: Annotated[int, Field(ge=1, le=512)] = 48
    """voxels along each edge of a crop"""
    spacing_mm: PositiveFloat = 1.0
    """isotropic voxel spacing of a crop"""
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    """folds of whole patients, beside the locked test list"""
    test_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """share of the cohort on the locked test list"""
    seed: NonNegativeInt = 0
    """draws the folds and the order of rows"""
    max_outside: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """a crop of which a larger share lies outside the scan is rejected (`mostly_outside`)"""
    match_patient: bool = True
    """reject a node whose patient_id is not the PatientID in its series (series without one pass)"""
    rows_per_part: Annotated[int, Field(ge=1, le=65536)] = 256
    """most rows of a part file, which is also the unit of work that an interruption can cost"""
    key_file: Path | None = Field(default=None, exclude=True)
    """file with the key of the pseudonyms (64 hex digits; made if missing), so that several stores name a patient alike"""


class PrepareSummary(Settings):
    """What came in and what became of it."""

    store: Path
    node_rows: int
    crops: int
    rejected_nodes: int
    files: int
    files_used: int
    files_skipped: int
    patients: int
    splits: dict[str, int]
    """rows of each fold and of `test`"""
    reasons: dict[str, int]
    """`node: <reason>` and `file: <reason>` -> how many"""
    already_done: bool = False
    """the store was finished before, from the same input with the same settings"""
    resumed_parts: int = 0
    """parts taken over from an interrupted run"""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return self.model_dump(mode="json")

    def __str__(self) -> str:
        head = "already complete, nothing to do" if self.already_done else f"done in {self.seconds:.1f} s"
        taken_over = f", {self.resumed_parts} parts taken over from an interrupted run" if self.resumed_parts else ""
        splits = ", ".join(f"{name}: {rows}" for name, rows in self.splits.items())
        lines = [
            f"{self.store}: {head}{taken_over}",
            f"  {self.node_rows} node rows = {self.crops} crops + {self.rejected_nodes} rejected; {self.patients} patients",
            f"  {self.files} files = {self.files_used} used + {self.files_skipped} skipped",
            f"  crops by fold: {splits}",
            *(f"  rejected, {reason}: {count}" for reason, count in self.reasons.items()),
        ]
        return "\n".join(lines)
