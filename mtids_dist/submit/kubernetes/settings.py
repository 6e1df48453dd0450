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
        with_overrides(tree, [override], option="--site-set", example="limits.deadline_s=86400")
        sources[override.partition("=")[0]] = "--site-set"
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        sources[key] = FLAGS.get(key, f"--{key}")
        with_overrides(tree, [f"{key}={json.dumps(value)}"], option=sources[key])
    for key, allowed in REQUIRED.items():
        if tree.get(key) is None:
            raise InputError(f"no {key}", where=f"--{key}", allowed=allowed)
    if "cron.alpha" in given and "schedule" not in tree["cron"]:
        raise InputError("a gate for a schedule that is not given", where="--alpha", allowed="with --cron SCHEDULE")
    try:
        return ManifestConfig.model_validate(tree)
    except ValidationError as error:
        otherwise = "manifest" if site is None else f"--site {site}"
        raise told(error, lambda key: _said_by(key, sources) or otherwise, ManifestConfig) from None


def _said_by(key: str, sources: Mapping[str, str]) -> str | None:
    """The last option that gave a setting or one above it.

    :param sources: setting -> the option that gave it.
    """
    options = [option for setting, option in sources.items() if f"{key}.".startswith(f"{setting}.")]
    return options[-1] if options else None


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
