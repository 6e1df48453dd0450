"""Runs on the cluster, as a short job of its own, beside a run folder that the user's machine may not see.

Sent as a single file: it uses nothing but Python's own library, whatever is installed there.

    on_cluster.py stop RUN                                       set the run's stop flag
    on_cluster.py pack RUN --seen FILE --leave NAME...           lay its files out where the dashboard serves them
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import tarfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

NO_FOLDER = 4
"""Exit code: there is no such run folder."""
SEEN, READY = "seen", "ready"
"""What `pack` says: the user's machine sees the same folder; or the parts are there."""
MANIFEST = "manifest.json"
BLOCK_BYTES = 1 << 20
KEPT_S = 3600
"""How long parts wait for somebody who never comes for them."""


def main() -> int:
    """Does what the command line says; its exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("stop", "pack"))
    parser.add_argument("run", type=Path)
    parser.add_argument("--seen", default="")
    parser.add_argument("--leave", nargs="*", default=[])
    parser.add_argument("--part-bytes", type=int, default=32 * BLOCK_BYTES)
    given = parser.parse_args()
    if not given.run.is_dir():
        say(f"no run folder {given.run}")
        return NO_FOLDER
    if given.action == "stop":
        (given.run / "STOP").touch()
        say(f"set {given.run / 'STOP'}")
    elif given.seen and (given.run / given.seen).exists():
        say(SEEN)
    else:
        serve(given.run, set(given.leave), given.part_bytes)
    return 0


def files_of(run: Path, leave: Collection[str]) -> list[Path]:
    """The files of a run folder, relative to it, without those below a folder or of a name that is in `leave`."""
    found: list[Path] = []
    for folder, folders, names in os.walk(run):
        folders[:] = sorted(name for name in folders if name not in leave)
        found += (Path(folder, name).relative_to(run) for name in sorted(names) if name not in leave)
    return found


def sha256_of(path: Path) -> str:
    """The checksum of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            found.update(block)
    return found.hexdigest()


def serve(run: Path, leave: Collection[str], part_bytes: int) -> None:
    """Packs the folder beside this job's own log, which is where the dashboard serves files from, until it is fetched."""
    logs = Path("/proc/self/fd/1").resolve().parent
    home = logs / f"mtids-fetch-{os.getpid()}-{time.time_ns():x}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    home.mkdir(mode=0o700)
    try:
        pack(run, files_of(run, leave), home, part_bytes)
        say(f"{READY} {home.name}")
        time.sleep(KEPT_S)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def pack(run: Path, files: list[Path], home: Path, part_bytes: int) -> None:
    """A tar archive in parts, with a manifest of both: sizes and checksums. A file that grows is taken as long as it was."""
    parts, listed = _Parts(home, part_bytes), []
    stream: Any = parts  # tarfile asks for more than it uses
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        for name in files:
            with (run / name).open("rb") as file:
                entry = archive.gettarinfo(arcname=str(name), fileobj=file)
                if entry is None or not entry.isreg():
                    continue
                hashed: Any = _Hashed(file)
                archive.addfile(entry, hashed)
                listed.append({"path": str(name), "bytes": entry.size, "sha256": hashed.sha256.hexdigest()})
    parts.close()
    (home / MANIFEST).write_text(json.dumps({"files": listed, "parts": parts.done}), encoding="utf-8")


class _Hashed:
    """A file whose checksum is taken as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data


class _Parts:
    """A stream that is written to files of at most so many bytes."""

    def __init__(self, home: Path, part_bytes: int) -> None:
        self._home, self._part_bytes = home, part_bytes
        self._part = bytearray()
        self.done: list[dict[str, Any]] = []

    def write(self, data: bytes) -> int:
        self._part += data
        while len(self._part) >= self._part_bytes:
            self._flush(self._part_bytes)
        return len(data)

    def close(self) -> None:
        if self._part:
            self._flush(len(self._part))

    def _flush(self, size: int) -> None:
        data, name = bytes(self._part[:size]), f"part-{len(self.done):05d}"
        (self._home / name).write_bytes(data)
        self.done.append({"name": name, "bytes": size, "sha256": hashlib.sha256(data).hexdigest()})
        del self._part[:size]


def say(text: str) -> None:
    """One line of the job's log."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
