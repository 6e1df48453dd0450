"""What a store is made from: is the input the one that it was begun with, and are the settings?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtids_dist.data.manifest import MANIFEST, STAGING, write_atomically
from mtids_dist.data.prepare_config import PrepareConfig
from mtids_dist.data.private import Private
from mtids_dist.data.store import Store
from mtids_dist.errors import InputError
from mtids_dist.settings import Settings


class Request(Settings):
    """Settings and keyed fingerprints of the input; staged at the start, in the manifest at the end."""

    settings: dict[str, Any]
    input: dict[str, str]

    @classmethod
    def of(cls, config: PrepareConfig, private: Private, folder: Path, paths: Sequence[Path], nodes_csv: Path) -> Request:
        """Reads the node table and the sizes of the files, no header: fast, and enough to notice a changed archive."""
        table = private.fingerprint("nodes", nodes_csv.read_bytes().hex())
        listing = [part for path in paths for part in (os.fspath(path.relative_to(folder)), str(_size(path)))]
        return cls(
            settings=config.model_dump(mode="json"),
            input={"node_table": table, "dicom_folder": private.fingerprint("dicom", *listing)},
        )

    def refuse_other(self, earlier: Request, store: Path) -> None:
        """InputError naming the first thing in which this differs from what the store was begun with."""
        for name in sorted(self.settings.keys() | earlier.settings.keys()):
            old, new = earlier.settings.get(name), self.settings.get(name)
            if old != new:
                raise InputError(
                    f"this store was begun with {name} {old}, name another folder for {name} {new}",
                    where=f"{store} prepare.{name}",
                )
        for name, what in (("node_table", "the node table"), ("dicom_folder", "the DICOM folder")):
            if self.input[name] != earlier.input.get(name):
                raise InputError(
                    f"{what} is not the one this store was begun with (contents changed); name another folder", where=str(store)
                )


def earlier_request(store: Path) -> Request | None:
    """What an unfinished store was begun with; None for a new folder, or one abandoned before it was said."""
    path = store / STAGING / "request.json"
    return Request.model_validate_json(path.read_bytes()) if path.exists() else None


def finished_request(store: Store) -> Request:
    """What a finished store was made from; InputError if another verb made it."""
    if store.manifest.made_by != "prepare":
        raise InputError(
            f"this store was made by {store.manifest.made_by}, name another folder", where=str(store.path / MANIFEST)
        )
    return Request(settings=store.manifest.settings, input=store.manifest.input)


def stage_request(request: Request, store: Path) -> None:
    """Note what the store is begun with, for the run that may have to go on."""
    write_atomically(store / STAGING / "request.json", request.model_dump_json().encode())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a dangling link: the scan gives it its reason
        return -1
