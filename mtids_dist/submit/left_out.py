"""What of a folder is never sent to a cluster, by its name or by what it holds, and what the user leaves out or puts in."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec

LEFT_OUT: Mapping[str, Sequence[str]] = {
    "version control": (".git", ".hg/", ".svn/"),
    "patients' images": ("*.dcm", "*.dicom", "*.ima", "dicomdir", "*.nii", "*.nii.gz", "*.nrrd", "*.mha", "*.mhd"),
    "arrays and archives": (
        *("*.npy", "*.npz", "*.h5", "*.hdf5", "*.mat", "*.zarr/", "*.zip", "*.7z", "*.rar"),
        *("*.tar", "*.tar.*", "*.tgz", "*.gz", "*.bz2", "*.xz", "*.zst"),
    ),
    "Parquet": ("*.parquet",),
    "checkpoints and weights": ("checkpoints/", "generations/", "*.safetensors", "*.pt", "*.pth", "*.ckpt", "*.distcp"),
    "secrets": (
        *(".env", ".env.*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.gpg", "*.asc"),
        *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "auth_token*", "*token", "*token.txt", "*token.json", "*kubeconfig*"),
        *("credentials", "*credentials.json", "*credentials.y*ml", "service-account*.json", "*password*.txt", "passwords*"),
        *(
            "secret.*",
            "secrets.*",
            "!secret.py",
            "!secrets.py",
            "*.tfstate",
            "*.tfvars",
            ".netrc",
            ".pypirc",
            ".npmrc",
            ".pgpass",
        ),
        *(".htpasswd", ".git-credentials", ".dockerconfigjson", ".huggingface*", ".s3cfg", ".boto"),
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
NO_FILE = "links that lead out of the folder, pipes and sockets"
NO_NAME = "names that are not UTF-8"
UNREADABLE = "files that can't be read"
PATIENTS = "tables of patients"
SNIFFED = 4096
PRIVATE_KEY = re.compile(rb"(?m)^-----BEGIN [A-Z ]*PRIVATE KEY-----")
TABLES = (".csv", ".tsv")
IDENTIFIER = re.compile(rb"(?i)\A[^\n]*\b(patient_?(id|name)|(study|series)_?instance_?uid|accession_?number)\b")
"""In the first line of a table."""


class Rules:
    """Why a path is left out. What is named by the user goes before everything else.

    :param root: the folder that is sent.
    :param exclude: patterns as in .gitignore.
    :param include: patterns of what is sent in spite of all rules.
    :param named: paths relative to `root` that the job's own arguments name.
    """

    def __init__(self, root: Path, *, exclude: Sequence[str], include: Sequence[str], named: Collection[Path]) -> None:
        self._root, self._resolved = root, root.resolve()
        self._never = {reason: GitIgnoreSpec.from_lines(patterns) for reason, patterns in LEFT_OUT.items()}
        self._exclude, self._include = GitIgnoreSpec.from_lines(exclude), GitIgnoreSpec.from_lines(include)
        self._named = {root / os.path.normpath(path) for path in named}
        self._ignores: list[tuple[Path, GitIgnoreSpec]] = []

    def read_ignores(self, folder: Path, names: Collection[str]) -> None:
        """Takes up the ignore files of a folder."""
        for name in IGNORE_FILES:
            if name in names:
                lines = (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
                self._ignores.append((folder, GitIgnoreSpec.from_lines(lines)))

    def reason(self, path: Path, *, is_folder: bool) -> str | None:
        """Why it is left out, if it is."""
        if not _is_utf8(path):
            return NO_NAME
        if self._leads_out(path, is_folder=is_folder):
            return NO_FILE
        name = _name(path, self._root, is_folder=is_folder)
        if path in self._named or self._include.match_file(name):
            return None
        by_name = next((reason for reason, never in self._never.items() if never.match_file(name.lower())), None)
        if by_name is not None:
            return by_name
        if self._exclude.match_file(name) or self._is_ignored(path, is_folder=is_folder):
            return IGNORED
        return _kind_of_folder(path) if is_folder else _told_by_content(path)

    def _leads_out(self, path: Path, *, is_folder: bool) -> bool:
        if path.is_symlink() and (is_folder or not path.resolve().is_relative_to(self._resolved)):
            return True
        return not is_folder and not path.is_file()

    def _is_ignored(self, path: Path, *, is_folder: bool) -> bool:
        return any(
            ignore.match_file(_name(path, base, is_folder=is_folder))
            for base, ignore in self._ignores
            if path.is_relative_to(base)
        )


def _name(path: Path, base: Path, *, is_folder: bool) -> str:
    return path.relative_to(base).as_posix() + ("/" if is_folder else "")


def _is_utf8(path: Path) -> bool:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind_of_folder(path: Path) -> str | None:
    if (path / "pyvenv.cfg").exists():
        return "environments and caches"
    if all((path / name).exists() for name in RUN_FILES):
        return "run folders"
    return "stores" if (path / STORE_FILE).exists() and any(path.glob("*.parquet")) else None


def _told_by_content(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            start = file.read(SNIFFED)
    except OSError:
        return UNREADABLE
    if start[128:132] == b"DICM":
        return "patients' images"
    if start[:4] == b"PAR1":
        return "Parquet"
    if path.suffix.lower() in TABLES and IDENTIFIER.search(start):
        return PATIENTS
    return "secrets" if PRIVATE_KEY.search(start) else None
