"""Settings of a manifest from a site's YAML file and from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mtids_dist.config import told, with_overrides
from mtids_dist.errors import InputError
from mtids_dist.submit.kubernetes.config import ManifestConfig

REQUIRED = {
    "image": "an image with this package (cluster/Containerfile): name@sha256:..., or {image: ...} in --site",
    "storage": "pvc:NAME, where run folders live, or {storage: ...} in --site",
}
"""What has no default, and what it looks like."""


FLAGS = {
    "workers.count": "--workers",
    "workers.gpus": "--gpus-per-worker",
    "workers.autoscale": "--autoscale",
    "cron.schedule": "--cron",
    "cron.alpha": "--alpha",
}
"""Setting -> the command line's option for it, where that is not called as the setting is."""


def read_settings(site: Path | None, overrides: Iterable[str], options: Mapping[str, Any]) -> ManifestConfig:
    """What the site's file says, with `a.b=c` overrides laid over it, and then the command line's own options.

    :param options: setting (`workers.count`) -> value; None: not given.
    :raises InputError: no such file, no YAML, an unknown setting, a value that is not allowed, an image or storage missing; it
        names the file or the option that said so.
    """
    tree = _file(site) if site is not None else {}
    sources: dict[str, str] = {}
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not (key and equals):
            allowed = "for example limits.deadline_s=86400"
            raise InputError("an override is KEY=VALUE", where="--site-set", found=override, allowed=allowed)
        _lay_over(tree, override, f"--site-set {override}")
        sources[key] = "--site-set"
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        sources[key] = FLAGS.get(key, f"--{key}")
        _lay_over(tree, f"{key}={json.dumps(value)}", sources[key])
    for key, allowed in REQUIRED.items():
        if tree.get(key) is None:
            raise InputError(f"no {key}", where=f"--{key}", allowed=allowed)
    if "cron.alpha" in given and "schedule" not in tree["cron"]:
        raise InputError("a gate for a schedule that is not given", where="--alpha", allowed="with --cron SCHEDULE")
    try:
        return ManifestConfig.model_validate(tree)
    except ValidationError as error:
        raise _told(error, sources, "manifest" if site is None else f"--site {site}") from None


def _lay_over(tree: dict[str, Any], override: str, option: str) -> None:
    """As `with_overrides` does; what is wrong with it is said of `option`."""
    try:
        with_overrides(tree, [override])
    except InputError as error:
        raise InputError(str(error).removeprefix(f"--set {override}: "), where=option) from None


def _told(error: ValidationError, sources: Mapping[str, str], otherwise: str) -> InputError:
    """The first thing that is wrong, as what `told` tells; `where` is whoever said it.

    :param sources: setting -> the option that gave it.
    """
    first = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    said_by = [option for setting, option in sources.items() if f"{key}.".startswith(f"{setting}.")]
    where = said_by[-1] if said_by else otherwise
    if first["type"] == "model_type":
        names = ", ".join(getattr(ManifestConfig.model_fields[key].annotation, "model_fields", ())) if "." not in key else ""
        return InputError(f"{key}: not a value but settings", where=where, found=first["input"], allowed=names)
    return told(error, where, ManifestConfig)


def _file(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  (a safe loader, and stricter)
    except OSError as error:
        what = (
            "a folder, not a file" if path.is_dir() else f"can't be read: {error.strerror}" if path.exists() else "no such file"
        )
        raise InputError(what, where=f"--site {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"not a YAML file: {error}", where=f"--site {path}") from None
    if not isinstance(tree, dict):
        raise InputError("a site's file is a mapping of settings", where=f"--site {path}", found=type(tree).__name__)
    return tree


class _Loader(yaml.SafeLoader):
    """Of two values for one key YAML keeps the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)
