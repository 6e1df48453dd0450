"""What of a folder would be sent to a cluster, and what never is."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pathspec import GitIgnoreSpec

from mtids_dist.errors import InputError

MIB = 1 << 20
MAX_FILES = 20_000
"""Above it the folder is not meant: a home directory, an archive."""
NAMED = 5
"""How many of the largest files a refusal names."""

LEFT_OUT: Mapping[str, Sequence[str]] = {
    "version control": (".git", ".hg/", ".svn/"),
    "patients' images": ("*.dcm", "*.dicom", "*.ima", "dicomdir", "*.nii", "*.nii.gz", "*.nrrd", "*.mha", "*.mhd"),
    "Parquet": ("*.parquet",),
    "checkpoints and weights": ("checkpoints/", "generations/", "*.safetensors", "*.pt", "*.pth", "*.ckpt", "*.distcp"),
    "secrets": (
        *(".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*"),
        *("auth_token*", "*kubeconfig*", "credentials", "credentials.json", ".netrc", ".pypirc", ".git-credentials"),
        *(".ssh/", ".aws/", ".azure/", ".gcloud/", ".kube/", ".ray/", ".docker/", "private/", "secrets/"),
    ),
    "environments and caches": (
        *(".venv/", "venv/", "node_modules/", "__pycache__/", "*.pyc", ".*_cache/", ".cache/", ".hypothesis/", ".tox/", ".nox/"),
        *("*.egg-info/", ".ipynb_checkpoints/", ".ds_store"),
    ),
}
"""Reason -> patterns as in .gitignore, in lower case; `private/` is where a store keeps its key and the way back to patients."""
RUN_FILES = ("run.yaml", "versions.json")
STORE_FILE = "manifest.json"
"""What tells a run folder and a store: they belong on the cluster's storage, and a run must not change what is sent."""
IGNORE_FILES = (".gitignore", ".rayignore")
IGNORED = "named in .gitignore, .rayignore or --exclude"
LINK = "links that lead out of the folder"
SNIFFED = 4096


@dataclass(frozen=True)
class SentFile:
    """One file: where it lies in the folder, and its size."""

    path: PurePosixPath
    size_bytes: int


@dataclass(frozen=True)
class Upload:
    """The files of a folder that are sent, in order, and how many were left out for which reason (a folder counts as one)."""

    root: Path
    files: tuple[SentFile, ...]
    left_out: Mapping[str, int]

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
        """SHA-256 over names, contents and whether each can be executed."""
        found = hashlib.sha256()
        for file in self.files:
            source = self.root / file.path
            found.update(f"{file.path}\0{os.access(source, os.X_OK):d}\0".encode())
            found.update(hashlib.sha256(source.read_bytes()).digest())
        return found.hexdigest()

    def write_zip(self, target: Path) -> None:
        """Packs the files; same files, same bytes."""
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in self.files:
                source = self.root / file.path
                entry = zipfile.ZipInfo(str(file.path))  # of 1980, whatever the clock says
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (0o755 if os.access(source, os.X_OK) else 0o644) << 16
                packed.writestr(entry, source.read_bytes())

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
            text += "; left out: " + ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        return text


def list_upload(root: Path, *, exclude: Sequence[str] = ()) -> Upload:
    """What of `root` would be sent.

    DICOM files and private keys are also known by their first bytes, whatever they are called.

    :param exclude: further patterns, as in .gitignore.
    :raises InputError: no such folder, or so many files that another folder must be meant.
    """
    root = root.absolute()
    if not root.is_dir():
        raise InputError("no such folder", where=f"--working-dir {root}")
    walk = _Walk(root, exclude)
    files = sorted(walk.files(), key=lambda file: file.path)
    return Upload(root, tuple(files), dict(sorted(walk.left_out.items())))


def mib(size_bytes: int) -> str:
    """A size for a person."""
    return f"{size_bytes / MIB:.1f} MiB" if size_bytes >= MIB / 10 else f"{size_bytes / 1024:.1f} KiB"


class _Walk:
    def __init__(self, root: Path, exclude: Sequence[str]) -> None:
        self._root = root
        self._never = {reason: GitIgnoreSpec.from_lines(patterns) for reason, patterns in LEFT_OUT.items()}
        self._exclude = GitIgnoreSpec.from_lines(exclude)
        self._ignores: list[tuple[Path, GitIgnoreSpec]] = []
        self.left_out: Counter[str] = Counter()

    def files(self) -> Iterator[SentFile]:
        number = 0
        for folder, folders, names in os.walk(self._root):
            self._read_ignores(Path(folder), names)
            folders[:] = sorted(name for name in folders if self._is_kept(Path(folder, name), is_folder=True))
            for name in names:
                path = Path(folder, name)
                if self._is_kept(path, is_folder=False):
                    number += 1
                    self._refuse_too_many(number)
                    yield SentFile(PurePosixPath(path.relative_to(self._root).as_posix()), path.stat().st_size)

    def _is_kept(self, path: Path, *, is_folder: bool) -> bool:
        reason = self._reason(path, is_folder=is_folder)
        if reason is not None:
            self.left_out[reason] += 1
        return reason is None

    def _reason(self, path: Path, *, is_folder: bool) -> str | None:
        """Why it is left out, if it is."""
        name = self._name(path, self._root, is_folder=is_folder)
        for reason, never in self._never.items():
            if never.match_file(name.lower()):
                return reason
        if self._exclude.match_file(name) or any(
            ignore.match_file(self._name(path, base, is_folder=is_folder))
            for base, ignore in self._ignores
            if path.is_relative_to(base)
        ):
            return IGNORED
        if path.is_symlink() and (is_folder or not path.resolve().is_relative_to(self._root.resolve())):
            return LINK
        return _folder_of_ours(path) if is_folder else _told_by_content(path)

    @staticmethod
    def _name(path: Path, base: Path, *, is_folder: bool) -> str:
        return path.relative_to(base).as_posix() + ("/" if is_folder else "")

    def _read_ignores(self, folder: Path, names: Sequence[str]) -> None:
        for name in IGNORE_FILES:
            if name in names:
                lines = (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
                self._ignores.append((folder, GitIgnoreSpec.from_lines(lines)))

    def _refuse_too_many(self, number: int) -> None:
        if number > MAX_FILES:
            raise InputError(
                "too many files to send",
                where=f"--working-dir {self._root}",
                found=f"more than {MAX_FILES}",
                allowed="a folder with the run description and what it needs, or --exclude PATTERN",
            )


def _folder_of_ours(path: Path) -> str | None:
    if (path / "pyvenv.cfg").exists():
        return "environments and caches"
    if all((path / name).exists() for name in RUN_FILES):
        return "run folders"
    return "stores" if (path / STORE_FILE).exists() and any(path.glob("*.parquet")) else None


def _told_by_content(path: Path) -> str | None:
    if not path.is_file():
        return LINK
    with path.open("rb") as file:
        start = file.read(SNIFFED)
    if start[128:132] == b"DICM":
        return "patients' images"
    if start[:4] == b"PAR1":
        return "Parquet"
    return "secrets" if b"PRIVATE KEY-----" in start else None
