"""Bringing a run folder back, over the dashboard's port alone, or by copying where this machine sees the folder itself."""

from __future__ import annotations

import json
import secrets
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtids_dist.errors import InputError, WorkFailedError
from mtids_dist.submit.cluster import Cluster, LostError
from mtids_dist.submit.helper import helper
from mtids_dist.submit.on_cluster import MANIFEST, NO_FOLDER, READY, SEEN, files_of, sha256_of
from mtids_dist.submit.states import Job
from mtids_dist.submit.upload import mib

STATES = ("checkpoints", "generations", "start", "state", "tune")
"""Folders that hold what a run goes on from: large, and of no use without the cluster."""
MARK = ".fetched.json"
"""In a folder that was fetched: a later fetch may replace it."""
PACKED_IN_S = 3600.0
TRIES = 6
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Fetched:
    """What was brought back, and which way."""

    folder: Path
    files: int
    size_bytes: int
    copied: bool
    finished: bool

    def __str__(self) -> str:
        way = "copied: this machine sees the run folder" if self.copied else "over the dashboard's port"
        rest = "" if self.finished else "; the job goes on"
        return f"{self.folder}: {self.files} files, {mib(self.size_bytes)}, checksums agree ({way}){rest}"

    def to_json(self) -> dict[str, Any]:
        """The same."""
        return {
            "folder": str(self.folder),
            "files": self.files,
            "bytes": self.size_bytes,
            "copied": self.copied,
            "finished": self.finished,
        }


def fetch(cluster: Cluster, job: Job, target: Path | None, *, states: bool = False, progress: Progress) -> Fetched:
    """Brings the job's run folder to `target`: whole, or not at all.

    :param target: by default a folder of the run's name, here.
    :param states: checkpoints and the like, too.
    :raises InputError: the job has no run folder, or `target` holds something else.
    :raises WorkFailedError: it could not be packed, or never came with the right checksums.
    """
    if job.run is None:
        raise InputError(
            "this job has no run folder of its own", where=job.id, found=job.entrypoint, allowed="a job of train or tune"
        )
    target = (target or Path(job.run.name)).absolute()
    _refuse_place(target, job.run)
    leave = () if states else STATES
    with _draft(target) as draft:
        with _seen_by(job.run) as mark:
            options = ("--seen", mark, "--leave", *leave)
            with helper(cluster, job.id, "pack", job.run, options) as packer:
                done, said = packer.wait(lambda text: bool(_word(text, READY)), limit_s=PACKED_IN_S)
                if done.code == NO_FOLDER and done.state.is_over:
                    raise WorkFailedError(f"{job.id} has no run folder on the cluster (yet): {job.run}")
                copied = _word(said, SEEN) is not None
                if copied:
                    files = _copy(job.run, draft, leave)
                elif (home := _word(said, READY)) and done.node_id:
                    files = _Download(cluster, done.node_id, home.split()[1], progress).into(draft)
                else:
                    raise WorkFailedError(f"{job.run} could not be packed: {said.strip().splitlines()[-1]}")
        (draft / MARK).write_text(json.dumps({"job": job.id, "run": str(job.run), "from": cluster.address.url}) + "\n")
    return Fetched(target, len(files), sum((target / name).stat().st_size for name in files), copied, job.state.is_over)


def _refuse_place(target: Path, run: Path) -> None:
    if target.resolve() == run.resolve():
        raise InputError("this is the run folder itself", where=f"--out {target}", allowed="another folder")
    if target.exists() and not (target / MARK).exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(
            "this holds something else", where=f"--out {target}", allowed="a new folder, or one that was fetched before"
        )


def _word(said: str, word: str) -> str | None:
    """The line that begins with a word of the helper's."""
    return next((line for line in said.splitlines() if line.split(" ")[0] == word), None)


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A folder that takes the target's place when the block ends well."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent)
    except OSError as error:
        raise InputError(f"no folder can be made there: {error.strerror}", where=f"--out {target}") from None
    with made as home:
        draft, before = Path(home, "draft"), Path(home, "before")
        draft.mkdir()
        yield draft
        if target.exists():
            target.rename(before)
        draft.rename(target)


@contextmanager
def _seen_by(run: Path) -> Iterator[str]:
    """A file in the run folder, if there is one here: if the cluster sees it, both see the same folder."""
    name = f".mtids-fetch-{secrets.token_hex(8)}"
    try:
        if run.is_dir():
            with suppress(OSError):
                (run / name).touch(exist_ok=False)
        yield name
    finally:
        with suppress(OSError):
            (run / name).unlink()


def _copy(run: Path, draft: Path, leave: tuple[str, ...]) -> list[Path]:
    files = [name for name in files_of(run, leave) if not name.name.startswith(".mtids-fetch-")]
    for name in files:
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(run / name, draft / name)
    return files


class _Download:
    """The parts of a packed run folder, each asked for again until its checksum is right."""

    def __init__(self, cluster: Cluster, node_id: str, home: str, progress: Progress) -> None:
        self._cluster, self._node_id, self._home, self._progress = cluster, node_id, home, progress

    def into(self, draft: Path) -> list[Path]:
        """Fetches and unpacks; the files."""
        archive, part = draft.with_name("archive.tar"), draft.with_name("part")
        self._get(MANIFEST, part)
        manifest = json.loads(part.read_text(encoding="utf-8"))
        with archive.open("wb") as whole:
            for number, wanted in enumerate(manifest["parts"], start=1):
                self._get(wanted["name"], part, wanted)
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole)
                self._progress(number, len(manifest["parts"]), "parts")
        with tarfile.open(archive) as packed:
            packed.extractall(draft, filter="data")
        archive.unlink()
        for wanted in manifest["files"]:
            if not _is_whole(draft / wanted["path"], wanted):
                raise WorkFailedError(f"{wanted['path']} came with another checksum than it had on the cluster")
        return [Path(wanted["path"]) for wanted in manifest["files"]]

    def _get(self, name: str, target: Path, wanted: Mapping[str, Any] | None = None) -> None:
        trouble = "its checksum is wrong"
        for attempt in range(TRIES):
            try:
                with target.open("wb") as file:
                    file.writelines(self._cluster.read(self._node_id, f"{self._home}/{name}"))
                if wanted is None or _is_whole(target, wanted):
                    return
            except LostError as error:
                trouble = str(error)
            time.sleep(2.0**attempt / 4)
        raise WorkFailedError(f"{name} did not come: {trouble}")


def _is_whole(path: Path, wanted: Mapping[str, Any]) -> bool:
    return (path.stat().st_size, sha256_of(path)) == (wanted["bytes"], wanted["sha256"])
