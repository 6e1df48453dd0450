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


def read_settings(site: Path | None, overrides: Iterable[str], options: Mapping[str, Any]) -> ManifestConfig:
    """What the site's file says, with `a.b=c` overrides laid over it, and then the command line's own options.

    :param options: setting (`workers.count`) -> value; None: not given.
    :raises InputError: no such file, no YAML, an unknown setting, a value that is not allowed, an image or storage missing.
    """
    given = [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    tree = with_overrides(_file(site) if site is not None else {}, [*overrides, *given])
    for key, allowed in REQUIRED.items():
        if tree.get(key) is None:
            raise InputError(f"no {key}", where=f"--{key}", allowed=allowed)
    try:
        return ManifestConfig.model_validate(tree)
    except ValidationError as error:
        raise told(error, "manifest" if site is None else f"manifest ({site})", ManifestConfig) from None


def _file(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError("no such file", where=f"--site {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"not a YAML file: {error}", where=f"--site {path}") from None
    if not isinstance(tree, dict):
        raise InputError("a site's file is a mapping of settings", where=f"--site {path}", found=type(tree).__name__)
    return tree
