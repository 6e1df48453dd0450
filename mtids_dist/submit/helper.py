"""A short job of ours beside another job's run folder: the user's machine may not see the cluster's storage."""

from __future__ import annotations

import secrets
import shlex
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mtids_dist.errors import WorkFailedError
from mtids_dist.submit.cluster import Cluster, LostError
from mtids_dist.submit.states import HELPER, Job

SCRIPT = Path(__file__).with_name("on_cluster.py")
POLL_S = 0.3
STARTS_IN_S = 300.0


class Helper:
    """One such job."""

    def __init__(self, cluster: Cluster, job_id: str) -> None:
        self._cluster, self.id = cluster, job_id

    def wait(self, until: Callable[[str], bool], *, limit_s: float = STARTS_IN_S) -> tuple[Job, str]:
        """The helper and what it has said, once it is over or has said what is waited for.

        :raises WorkFailedError: that takes too long.
        """
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            with suppress(LostError):
                job = self._cluster.known_job(self.id)
                said = self._cluster.log(self.id)
                if job.state.is_over or until(said):
                    return job, said
            time.sleep(POLL_S)
        raise WorkFailedError(f"{self.id} got nothing done in {limit_s:g} s; see mtids-dist jobs logs {self.id}")


@contextmanager
def helper(cluster: Cluster, subject: str, action: str, run: Path, options: Sequence[str] = ()) -> Iterator[Helper]:
    """Runs `on_cluster.py action run options` as a job for as long as the block lasts.

    It stays on the cluster's list, marked as ours: Ray makes a failed job of one that is deleted as soon as it is over.

    :param subject: the job that it is about.
    """
    job_id = f"{subject}-{action}-{secrets.token_hex(3)}"
    entrypoint = shlex.join(("python", SCRIPT.name, action, str(run), *options))
    with tempfile.TemporaryDirectory(prefix="mtids-helper-") as home:
        packed = Path(home, "helper.zip")
        with zipfile.ZipFile(packed, "w") as file:
            file.writestr(zipfile.ZipInfo(SCRIPT.name), SCRIPT.read_bytes())
        cluster.submit(job_id, entrypoint, {"working_dir": str(packed)}, {HELPER: action})
    try:
        yield Helper(cluster, job_id)
    finally:
        with suppress(LostError):  # it would end, and take its files away, by itself, too
            cluster.stop(job_id)
