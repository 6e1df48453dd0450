"""What of a folder would be sent to a cluster: a list first, then the bytes."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mtids_dist.errors import InputError
from mtids_dist.submit.left_out import Rules

MIB = 1 << 20
MAX_FILES = 20_000
"""Above it the folder is not meant: a home directory, an archive."""
NAMED = 5
"""How many of the largest files a refusal names."""


@dataclass(frozen=True)
class SentFile:
    """One file: where it lies in the folder, and its size."""

    path: PurePosixPath
    size_bytes: int


@dataclass(frozen=True)
class Upload:
    """The files of a folder that are sent, in order, and reason -> what was left out for it (a folder stands for all in it)."""

    root: Path
    files: tuple[SentFile, ...]
    left_out: Mapping[str, Sequence[str]]

    @property
    def size_bytes(self) -> int:
        """Of all files, before they are packed."""
        return sum(file.size_bytes for file in self.files)

    @property
    def largest(self) -> list[SentFile]:
        """The largest first."""
        return sorted(self.files, key=lambda file: -file.size_bytes)

    def __contains__(self, path: Path) -> bool:
        """Whether a path relative to the folder is one of the files."""
        return any(Path(file.path) == Path(os.path.normpath(path)) for file in self.files)

    def digest(self) -> str:
        """SHA-256 over names, contents and whether each can be executed.

        :raises InputError: a file has gone since it was listed.
        """
        found = hashlib.sha256()
        for file in self.files:
            found.update(f"{file.path}\0{os.access(self.root / file.path, os.X_OK):d}\0".encode())
            found.update(hashlib.sha256(self._read(file)).digest())
        return found.hexdigest()

    def write_zip(self, target: Path) -> None:
        """Packs the files; same files, same bytes.

        :raises InputError: a file has gone since it was listed.
        """
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in self.files:
                entry = zipfile.ZipInfo(str(file.path))  # of 1980, whatever the clock says
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (0o755 if os.access(self.root / file.path, os.X_OK) else 0o644) << 16
                packed.writestr(entry, self._read(file))

    def refuse_above(self, limit_mib: float) -> None:
        """Refuses what is larger than the limit.

        :raises InputError: naming the largest files.
        """
        if self.size_bytes > limit_mib * MIB:
            largest = ", ".join(f"{file.path} ({mib(file.size_bytes)})" for file in self.largest[:NAMED])
            raise InputError(
                f"too much to send, the largest are {largest}",
                where=f"--working-dir {self.root}",
                found=mib(self.size_bytes),
                allowed=f"{limit_mib:g} MiB: leave files out with --exclude PATTERN, or raise --max-upload-mib",
            )

    def lines(self, number: int) -> list[str]:
        """What is sent, for a person: the sum, and the largest files."""
        named = [f"  {file.path} ({mib(file.size_bytes)})" for file in self.largest[:number]]
        others = len(self.files) - len(named)
        return [f"sends {self}", *named, *([f"  and {others} smaller ones"] if others else [])]

    def __str__(self) -> str:
        text = f"{len(self.files)} files, {mib(self.size_bytes)}, of {self.root}"
        if self.left_out:
            counted = ", ".join(f"{len(names)} {reason}" for reason, names in self.left_out.items())
            text += f"; left out (--dry-run names them): {counted}"
        return text

    def _read(self, file: SentFile) -> bytes:
        try:
            return (self.root / file.path).read_bytes()
        except OSError as error:
            raise InputError(
                f"a file that was to be sent can't be read any more: {error.strerror}",
                where=f"--working-dir {self.root}",
                found=file.path,
            ) from None


def list_upload(root: Path, *, exclude: Sequence[str] = (), include: Sequence[str] = (), named: Collection[Path] = ()) -> Upload:
    """What of `root` would be sent.

    DICOM files, tables of patients and private keys are also known by what they hold, whatever they are called.

    :param exclude: further patterns, as in .gitignore.
    :param include: patterns of what is sent though it would be left out.
    :param named: paths relative to `root` that the job's arguments name: they are sent, too.
    :raises InputError: no such folder, or so many files that another folder must be meant.
    """
    root = root.absolute()
    if not root.is_dir():
        raise InputError("no such folder", where=f"--working-dir {root}")
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    files = sorted(_walk(root, Rules(root, exclude=exclude, include=include, named=named), left_out), key=lambda file: file.path)
    return Upload(root, tuple(files), {reason: sorted(names) for reason, names in sorted(left_out.items())})


def mib(size_bytes: int) -> str:
    """A size for a person."""
    return f"{size_bytes / MIB:.1f} MiB" if size_bytes >= MIB / 10 else f"{size_bytes / 1024:.1f} KiB"


def _walk(root: Path, rules: Rules, left_out: defaultdict[str, list[str]]) -> Iterator[SentFile]:
    def is_kept(path: Path, *, is_folder: bool) -> bool:
        reason = rules.reason(path, is_folder=is_folder)
        if reason is not None:
            left_out[reason].append(_printable(path.relative_to(root)) + ("/" if is_folder else ""))
        return reason is None

    number = 0
    for place, folders, names in os.walk(root):
        folder = Path(place)
        rules.read_ignores(folder, names)
        folders[:] = sorted(name for name in folders if is_kept(folder / name, is_folder=True))
        for path in (folder / name for name in names):
            if is_kept(path, is_folder=False):
                number += 1
                _refuse_too_many(root, number)
                yield SentFile(PurePosixPath(path.relative_to(root).as_posix()), path.stat().st_size)


def _printable(path: Path) -> str:
    return os.fsencode(path).decode(errors="backslashreplace")


def _refuse_too_many(root: Path, number: int) -> None:
    if number > MAX_FILES:
        raise InputError(
            "too many files to send",
            where=f"--working-dir {root}",
            found=f"more than {MAX_FILES}",
            allowed="a folder with the run description and what it needs, or --exclude PATTERN",
        )
