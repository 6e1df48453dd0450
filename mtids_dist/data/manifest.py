"""`manifest.json`: what made a store, what is in it, and a checksum of every file."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mtids_dist import __version__
from mtids_dist.settings import Settings

MANIFEST = "manifest.json"
REJECTED = "rejected.parquet"
STAGING = ".staging"
"""The folder that marks a store as unfinished; a writer makes it and `finish` removes it."""
PRIVATE = "private"
"""The folder with the key and the lookup table of the keyed hashes: never shared."""


class FileEntry(Settings):
    """One file of the store, with what tells that it is whole."""

    name: str
    size: int
    """bytes"""
    sha256: str


class PartFile(FileEntry):
    """One part file: rows of a single fold."""

    fold: int
    rows: int


class SplitCount(Settings):
    """How much one fold holds."""

    rows: int
    patients: int


class Manifest(Settings):
    """The contents of `manifest.json`."""

    format: Literal[1] = 1
    made_by: str
    """the verb that made the store, e.g. `prepare` or `dataset lidc-readings`"""
    versions: dict[str, str]
    settings: dict[str, Any] = Field(default_factory=dict)
    """the settings of the verb, as given and defaulted"""
    input: dict[str, str] = Field(default_factory=dict)
    """keyed fingerprints of what went in"""
    crop_shape: tuple[int, int, int]
    """z, y, x in voxels"""
    spacing_mm: float | None
    """isotropic voxel spacing; null where it has no meaning"""
    value_kind: str = "hu"
    """what a voxel value is: `hu` (Hounsfield units), `mask`, `grey`, ..."""
    label_columns: tuple[str, ...]
    folds: int = Field(ge=1)
    splits: dict[str, SplitCount]
    """rows and patients of each fold, and of `test`"""
    test_patients: tuple[str, ...]
    """the locked test list: keyed hashes of patients that no fold holds"""
    counts: dict[str, int]
    """what came in and what became of it"""
    parts: tuple[PartFile, ...]
    rejected: FileEntry | None = None
    sharing: str = f"Share this folder without {PRIVATE}/: only that subfolder leads back to patients."


def file_entry(path: Path) -> FileEntry:
    """Size and checksum of a file just written."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)
    return FileEntry(name=path.name, size=path.stat().st_size, sha256=digest)


def _digest(file: Any) -> str:
    digest = hashlib.sha256()
    for chunk in iter(lambda: file.read(1 << 20), b""):
        digest.update(chunk)
    return digest.hexdigest()


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Versions of ours, of Python and of installed distributions."""
    return {"mtids-dist": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """The whole file or none of it, also when the process is killed in between."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:  # noqa: PTH123 - needs the mode
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
