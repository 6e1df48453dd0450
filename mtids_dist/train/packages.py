"""Which versions of what a run depends on are here, and where they lie; nothing is imported to find out."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

UNKNOWN = "unknown"


def version_of(distribution: str) -> str:
    """Look up an installed version; `unknown` for what is on the path without having been installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return UNKNOWN


def folder_of(module: str) -> str:
    """Find the folder that `import module` would take a top-level module from; `unknown` where it would fail."""
    spec = find_spec(module)
    if spec is None:
        return UNKNOWN
    if spec.submodule_search_locations:
        return next(iter(spec.submodule_search_locations))
    return str(Path(spec.origin).parent) if spec.origin else UNKNOWN


def imported_from(modules: Iterable[str]) -> dict[str, dict[str, str]]:
    """Module -> its `version` and `folder`; a module is called like its distribution here, but for the hyphens."""
    return {module: {"version": version_of(module.replace("_", "-")), "folder": folder_of(module)} for module in modules}
