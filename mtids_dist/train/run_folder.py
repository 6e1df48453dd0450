"""Opening a run folder: a fresh one, or one that the same run left unfinished."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mtids_dist.errors import InputError
from mtids_dist.train.job import RunFolder
from mtids_dist.train.metrics_log import read_lines
from mtids_dist.train.packages import version_of

MAY_CHANGE = (
    "run",
    "train.epochs",
    "train.scale.",
    "train.keep_checkpoints",
    "train.checkpoint_every",
    "train.log_every",
    "train.max_failures",
    "tune.concurrent",
    "tune.max_failures",
)
"""Settings that a resumed run may have otherwise: they do not change what has been learned so far, and a folder may move."""

PACKAGES = ("mtids-dist", "ray", "torch", "deepspeed", "torchjd", "monai", "pydicom", "pyarrow", "numpy")


def check_run(
    folder: RunFolder,
    description: Mapping[str, Any],
    *,
    fixed: Collection[str] = (),
    others: Collection[str] = ("history.jsonl",),
) -> bool:
    """Checks a run description against the one in the folder, if there is one; writes nothing.

    :param fixed: settings of `MAY_CHANGE` that may not change here.
    :param others: files by which a folder of another kind is known: of a search, where this is a run.
    :return: whether the run has trained all the epochs that are asked for.
    :raises InputError: the folder holds a run with other settings (names the first), or something that is no run.
    """
    if foreign := [name for name in others if (folder.path / name).exists()]:
        raise InputError("this folder is of another verb", where=str(folder.path), found=foreign[0], allowed="--set run=FOLDER")
    if folder.description.exists():
        _refuse_changes(folder, description, fixed)
        return has_finished(folder, description["train"]["epochs"])
    _check_place(folder.path)
    return False


def open_run(folder: RunFolder, description: Mapping[str, Any]) -> None:
    """Writes the run description, which `check_run` has let pass, into a fresh folder or into the one that it goes on with.

    An earlier stop is forgotten.

    :raises InputError: no folder can be made there.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"no folder can be made here: {error.strerror}", where=str(folder.path)) from None
    if not folder.versions.exists():
        folder.versions.write_text(json.dumps(_versions(), indent=1) + "\n")
    folder.description.write_text(yaml.safe_dump(dict(description), sort_keys=False))
    folder.stop_flag.unlink(missing_ok=True)


def has_finished(folder: RunFolder, epochs: int) -> bool:
    """Whether a run has trained so many epochs and left its weights."""
    lines = read_lines(folder.metrics) if folder.metrics.exists() else iter(())
    done = [line["epoch"] for line in lines if line["kind"] == "event" and line["event"] == "finished"]
    return folder.weights.exists() and bool(done) and done[-1] >= epochs


def _check_place(path: Path) -> None:
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise InputError("no folder can be made here: a file is in the way", where=str(path), found=there)
    if path.exists() and any(path.iterdir()):
        raise InputError("the run folder holds something else", where=str(path), allowed="a new or empty folder, or a run's own")


def _refuse_changes(folder: RunFolder, description: Mapping[str, Any], fixed: Collection[str]) -> None:
    before = dict(_leaves(yaml.safe_load(folder.description.read_text())))
    now = dict(_leaves(description))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and (key in fixed or not key.startswith(MAY_CHANGE)):
            raise InputError(
                f"this run folder was begun with another {key}",
                where=str(folder.description),
                found=f"{now.get(key)}, was {before.get(key)}",
                allowed="the same settings, or another run folder (--set run=...)",
            )


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version_of(package) for package in PACKAGES}}
