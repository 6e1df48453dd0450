"""Start a trunk from a weights file, and say what was loaded and what was not.

Read are an own checkpoint (whatever its tasks and expert counts) and published 3-D ResNet weights, such as MedicalNet's
(https://github.com/Tencent/MedicalNet): `.pth`, entries under `state_dict`, names that begin with `module.`.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mtids_dist.errors import InputError
from mtids_dist.model.mtids import MTIDS

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_BLOCK = re.compile(r"(layer\d+\.\d+)\.conv")
_ALLOWED = "an own model.safetensors, or weights of a published 3-D ResNet (.pth), of the same trunk"


@dataclass(frozen=True)
class NotLoaded:
    """A tensor of the file or of the trunk that found no counterpart, by its name in the trunk."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What `load_trunk` did."""

    path: Path
    loaded: tuple[str, ...]
    """tensors of the trunk that now hold the file's values"""
    missing: tuple[NotLoaded, ...]
    """tensors of the trunk that kept their own values"""
    left: tuple[NotLoaded, ...]
    """tensors of the file that were not used"""
    parameters: int
    """numbers loaded"""
    of: int
    """numbers in the trunk"""
    batch_norm: bool
    """whether the file comes from a network with batch norm: scale and shift were taken, its running statistics were not"""

    def __str__(self) -> str:
        line = f"{self.path}: loaded {len(self.loaded)} tensors, {self.parameters:,} of the trunk's {self.of:,} parameters"
        if self.missing:
            line += f"; kept as they were: {_summary(self.missing)}"
        if self.left:
            line += f"; not used from the file: {_summary(self.left)}"
        if self.batch_norm:
            line += "; the file's batch norm became group norm: scale and shift taken, its features not kept exactly"
        return line


def load_trunk(model: MTIDS, path: Path | str) -> LoadReport:
    """Copy the file's weights into the model's trunk, in place; experts, gates and heads stay as they are.

    :raises InputError: no such file, not a weights file, or one of another trunk. The model is then unchanged.
    """
    path = Path(path)
    found = _trunk_tensors(_read(path))
    own = model.trunk.state_dict()
    report = _compare(path, found, own)
    deeper = {block[1] for name in found if (block := _BLOCK.match(name))} - {
        block[1] for name in own if (block := _BLOCK.match(name))
    }
    if deeper or 2 * report.parameters < report.of:
        why = f"block {min(deeper)} has no place in it" if deeper else f"{report.parameters:,} of {report.of:,} parameters fit"
        raise InputError(f"not the weights of a {model.config.trunk.value} trunk", where=str(path), found=why, allowed=_ALLOWED)
    with torch.no_grad():
        for name in report.loaded:
            own[name].copy_(found[name])
    return report


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise InputError("no such weights file", where=str(path), allowed=_ALLOWED)
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError("can't be read as weights", where=str(path), found=type(error).__name__, allowed=_ALLOWED) from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise InputError("holds no tensors by name", where=str(path), found=type(content).__name__, allowed=_ALLOWED)
    return content


def _trunk_tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The file's tensors by their name in a trunk; of an own checkpoint, its trunk's alone."""
    tensors = {str(name).removeprefix("module."): value for name, value in content.items() if isinstance(value, Tensor)}
    own = {name.removeprefix("trunk."): value for name, value in tensors.items() if name.startswith("trunk.")}
    return own or tensors


def _compare(path: Path, found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> LoadReport:
    fits = [name for name in own if name in found and found[name].shape == own[name].shape]
    return LoadReport(
        path=path,
        loaded=tuple(fits),
        missing=tuple(NotLoaded(name, _why_missing(name, found, own)) for name in own if name not in fits),
        left=tuple(NotLoaded(name, _why_left(name, own)) for name in found if name not in fits),
        parameters=sum(own[name].numel() for name in fits),
        of=sum(tensor.numel() for tensor in own.values()),
        batch_norm=any(name.endswith(_STATISTICS) for name in found),
    )


def _why_missing(name: str, found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    if name not in found:
        return "not in the file"
    return f"shape {list(found[name].shape)} in the file, {list(own[name].shape)} in the trunk"


def _why_left(name: str, own: Mapping[str, Tensor]) -> str:
    if name.endswith(_STATISTICS):
        return "statistics of batch norm, and the trunk has group norm"
    return "another shape" if name in own else "no such tensor in the trunk"


def _summary(entries: tuple[NotLoaded, ...]) -> str:
    """Reasons with their counts and an example each."""
    names: dict[str, list[str]] = {}
    for entry in entries:
        names.setdefault(entry.reason, []).append(entry.name)
    return ", ".join(f"{len(of)} ({of[0]}{', ...' if len(of) > 1 else ''}: {reason})" for reason, of in names.items())
