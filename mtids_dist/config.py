"""The run description: the rooms' own settings in one YAML file, with overrides, and errors that name the key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from mtids_dist.data import PrepareConfig
from mtids_dist.dicom import PhantomConfig
from mtids_dist.errors import InputError
from mtids_dist.train import RunFolder, TrainJob
from mtids_dist.tune import SearchConfig

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


class RunConfig(TrainJob):
    """A whole run: what is learned (the job), where it lives, and how its data come to be."""

    run: Path = Path("runs/run")
    """The run folder."""
    phantom: PhantomConfig = PhantomConfig()
    """The synthetic cohort, where that is the data."""
    prepare: PrepareConfig = PrepareConfig()
    """Crops, spacing, folds and the locked test list."""
    tune: SearchConfig = SearchConfig()
    """What `mtids-dist tune` searches."""

    @property
    def folder(self) -> RunFolder:
        """The run folder's files."""
        return RunFolder(self.run)

    def job(self) -> TrainJob:
        """What a rank needs to know, paths made absolute: a worker has another working directory."""
        job = TrainJob.model_validate({name: getattr(self, name) for name in TrainJob.model_fields})
        data, train = job.data, job.train
        return job.model_copy(
            update={
                "data": data.model_copy(update={"store": data.store and data.store.absolute()}),
                "train": train.model_copy(update={"init_from": train.init_from and train.init_from.absolute()}),
            }
        )

    def paths(self) -> dict[str, dict[str, Path]]:
        """What the ranks write and read, as setting -> absolute path: they must all find the same there."""
        job = self.job()
        reads = {"data.store": job.data.store, "train.init_from": job.train.init_from}
        return {"writes": {"run": self.run.absolute()}, "reads": {name: path for name, path in reads.items() if path}}

    def resolved(self) -> dict[str, Any]:
        """Every setting as JSON data: what `run.yaml` of a run folder holds."""
        return self.model_dump(mode="json")


def load_run(path: Path, overrides: Iterable[str] = ()) -> RunConfig:
    """The run description in a YAML file, with `a.b=c` overrides laid over it (values are read as YAML).

    :raises InputError: no such file, no YAML, an unknown key (with the nearest valid name), a value out of its range.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("no such run description", where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise InputError(f"not a YAML file: {error}", where=str(path)) from None
    if not isinstance(tree, dict):
        raise InputError("a run description is a mapping of settings", where=str(path), found=type(tree).__name__)
    return parse_run(with_overrides(tree, overrides), where=str(path))


def with_overrides(
    tree: dict[str, Any], overrides: Iterable[str], *, option: str = "--set", example: str = "train.epochs=5"
) -> dict[str, Any]:
    """`tree` with `a.b=c` overrides laid over it.

    :param option: that they were given by, and an example of one.
    :raises InputError: an override that is no KEY=VALUE.
    """
    for override in overrides:
        _override(tree, override, option, example)
    return tree


def parse_run(tree: Mapping[str, Any], *, where: str) -> RunConfig:
    """The run description in `tree`.

    :raises InputError: naming `where`, the key, what was found and what is allowed; the first wrong key only.
    """
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise told(error, where) from None


def _override(tree: dict[str, Any], override: str, option: str, example: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError("an override is KEY=VALUE", where=option, found=override, allowed=f"for example {example}")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise InputError(f"{parent} is a single value, it has no settings below it", where=f"{option} {override}")
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError("the value is no YAML", where=f"{option} {override}") from None


def told(error: ValidationError, where: str | Callable[[str], str], settings: type[BaseModel] = RunConfig) -> InputError:
    """The first thing that is wrong in `settings`, as a user is told it; for a misspelt key also the nearest valid one.

    :param where: who said it, or what names that for the wrong key.
    """
    # A misspelt key also leaves the right one missing: the misspelling is what to tell.
    first = min(error.errors(include_url=False), key=lambda e: e["type"] not in _UNKNOWN)
    key = ".".join(str(part) for part in first["loc"])
    where = where if isinstance(where, str) else where(key)
    if first["type"] == "model_type":
        return InputError(
            f"{key}: not a value but settings",
            where=where,
            found=first["input"],
            allowed=", ".join(_names_at(settings, first["loc"])),
        )
    if first["type"] in _UNKNOWN:
        names = _names_at(settings, first["loc"][:-1])
        near = get_close_matches(str(first["loc"][-1]), names, n=1, cutoff=0.0)
        hint = f"did you mean {near[0]}? " if near else ""
        return InputError(f"unknown key {key}", where=where, allowed=f"{hint}({', '.join(names)})")
    found = first["input"] if not isinstance(first["input"], Mapping) else None
    message = first["msg"].removeprefix("Value error, ")
    return InputError(f"{key}: {message}" if key else message, where=where, found=found)


def _names_at(kind: Any, path: Iterable[Any]) -> list[str]:
    """Valid keys of the settings at `path` below `kind`."""
    for part in path:
        hints = _hints(kind)
        kind = hints[str(part)] if str(part) in hints else _value_type(kind)
    return list(_hints(_settings_in(kind)))


def _hints(kind: Any) -> dict[str, Any]:
    kind = _settings_in(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    if is_dataclass(kind):
        return {field.name: field.type for field in fields(kind)}
    return {}


def _settings_in(kind: Any) -> Any:
    """The settings class in an annotation such as `AugmentConfig | None`."""
    inner = [arg for arg in get_args(kind) if is_dataclass(arg) or (isinstance(arg, type) and issubclass(arg, BaseModel))]
    return inner[0] if inner else kind


def _value_type(kind: Any) -> Any:
    """What a mapping such as `Mapping[str, Task]` holds."""
    return get_args(kind)[-1] if get_args(kind) else kind
