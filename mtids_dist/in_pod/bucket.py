"""Copies a run folder to an object store and back, so that a run goes on after its pod and its disk are gone."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Set
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow.fs import FileSelector, FileSystem, FileType

from mtids_dist.in_pod.until_asked import until_asked_to_end

Stamp = tuple[int, int]
"""Size and time of the last change."""

EVERY_S = 30.0
SKIPPED = ("STOP",)
"""A stop flag belongs to the pod that it was meant for."""


def pull(place: str, folder: Path) -> int:
    """Copies everything below `place` (a URI) into `folder`; how many files."""
    system, root = FileSystem.from_uri(place)
    found = [info for info in system.get_file_info(_below(root)) if info.type is FileType.File]
    for info in found:
        target = folder / PurePosixPath(info.path).relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        with system.open_input_stream(info.path) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    return len(found)


class Pusher:
    """Takes what has changed in a folder to an object store, again and again."""

    def __init__(self, folder: Path, place: str) -> None:
        self._folder = folder
        self._system, self._root = FileSystem.from_uri(place)
        self._there: dict[str, Stamp] = {}
        self._missing: Set[str] = set()

    def push(self) -> bool:
        """Whether the folder held still for it. Files that name others are read first and written last, and not at all where
        something else has gone in between: what is in the bucket never names what is not."""
        indices, files = self._indices(), self._files()
        if self._indices() != indices:
            return False
        try:
            for name, (path, stamp) in files.items():
                if not _is_index(name) and self._there.get(name) != stamp:
                    self._send(name, path, stamp)
        except FileNotFoundError:
            return False
        for name, content in indices.items():
            with self._open(name) as sink:
                sink.write(content)
        self._remove(files.keys())
        return True

    def _send(self, name: str, path: Path, stamp: Stamp) -> None:
        with path.open("rb") as source, self._open(name) as sink:
            shutil.copyfileobj(source, sink)
        self._there[name] = stamp

    def _indices(self) -> dict[str, bytes]:
        return {name: path.read_bytes() for name, (path, _) in self._files().items() if _is_index(name)}

    def _remove(self, names: Set[str]) -> None:
        """What has been gone for two rounds: an index that named it has been replaced by now."""
        gone = self._there.keys() - names
        for name in gone & self._missing:
            self._system.delete_file(str(PurePosixPath(self._root, name)))
            del self._there[name]
        self._missing = gone

    def _files(self) -> dict[str, tuple[Path, Stamp]]:
        paths = (path for path in sorted(self._folder.rglob("*")) if path.is_file() and path.name not in SKIPPED)
        stamped = ((path, _stamp(path)) for path in paths)
        return {path.relative_to(self._folder).as_posix(): (path, stamp) for path, stamp in stamped if stamp is not None}

    def _open(self, name: str) -> Any:
        path = PurePosixPath(self._root, name)
        self._system.create_dir(str(path.parent), recursive=True)
        return self._system.open_output_stream(str(path))


def _stamp(path: Path) -> Stamp | None:
    """None: it is gone."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _is_index(name: str) -> bool:
    return name.endswith(".json") and "checkpoint_" not in str(PurePosixPath(name).parent)


def _below(root: str) -> FileSelector:
    return FileSelector(root, recursive=True, allow_not_found=True)


def main() -> None:
    """`bucket pull s3://BUCKET/PREFIX FOLDER` once, or `bucket push FOLDER s3://BUCKET/PREFIX` until it is asked to end."""
    verb, source, target = sys.argv[1:]
    if verb == "pull":
        pull(source, Path(target))
        return
    until_asked_to_end(Pusher(Path(source), target).push, every_s=EVERY_S)


if __name__ == "__main__":
    main()
