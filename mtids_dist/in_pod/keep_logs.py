"""Copies Ray's logs to a folder that outlives the pod, while they are written; asked to end, it takes what is left and goes."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from mtids_dist.in_pod.until_asked import until_asked_to_end

EVERY_S = 10.0


@dataclass
class _Copied:
    target: Path
    size: int = 0


class LogKeeper:
    """Follows files by what they are, not by their names: a log that is rotated goes on in the one copy."""

    def __init__(self, session: Path, kept: Path) -> None:
        self._session, self._kept = session, kept
        self._copied: dict[int, _Copied] = {}

    def take(self) -> None:
        """Appends what is new in every log to its copy."""
        paths = (path for path in self._session.glob("session_*/logs/**/*") if path.is_file() and not _by_link(path))
        for path in sorted(paths, key=_oldest_first):
            self._take(path)

    def _take(self, path: Path) -> None:
        try:
            with path.open("rb") as source:
                known = self._copied.setdefault(os.fstat(source.fileno()).st_ino, _Copied(self._target(path)))
                source.seek(known.size)
                new = source.read()
        except FileNotFoundError:  # rotated away just now: it is there under its next name
            return
        if new:
            known.target.parent.mkdir(parents=True, exist_ok=True)
            with known.target.open("ab") as target:
                target.write(new)
            known.size += len(new)

    def _target(self, path: Path) -> Path:
        return self._kept / path.relative_to(self._session).with_name(_rotation(path)[0])


def _rotation(path: Path) -> tuple[str, int]:
    """The name that a log began with, and how often it has been rotated: `raylet.out.2` is older than `raylet.out.1`."""
    name, _, number = path.name.rpartition(".")
    return (name, int(number)) if name and number.isdigit() else (path.name, 0)


def _oldest_first(path: Path) -> tuple[Path, str, int]:
    name, number = _rotation(path)
    return path.parent, name, -number


def _by_link(path: Path) -> bool:
    """`session_latest` leads to a session that is there under its own name."""
    return any(part.is_symlink() for part in (path, *path.parents))


def main() -> None:
    """`python -m mtids_dist.in_pod.keep_logs /tmp/ray /mnt/storage/logs/NAME`: a folder for each pod."""
    session, kept = map(Path, sys.argv[1:])
    keeper = LogKeeper(session, kept / os.environ.get("POD_NAME", "pod"))
    until_asked_to_end(keeper.take, every_s=EVERY_S)


if __name__ == "__main__":
    main()
