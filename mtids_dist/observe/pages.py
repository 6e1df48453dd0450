"""Where Ray's own dashboard shows a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtids_dist.errors import InputError

if TYPE_CHECKING:
    from mtids_dist.submit import Cluster

TRAIN_RUNS = "/api/train/v2/runs/v1"


@dataclass(frozen=True, kw_only=True)
class Pages:
    """The last job of a run, and the names that Ray Train and Ray Data know it by.

    :param job: the id that it was submitted with, or Ray's own where a driver on the cluster ran it.
    :param train: status of its Train runs, by name; Ray's dashboard has no page for them, only its API.
    :param datasets: as the job's page lists them, the last one first.
    """

    job: str
    state: str
    job_page: str
    train_runs: str
    train: dict[str, str]
    datasets: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"job {self.job}: {self.state}", f"  {self.job_page}"]
        if self.datasets:
            lines.append(f"  Ray Data Overview there: {len(self.datasets)} dataset(s), the last one {self.datasets[0]}")
        lines += [f"  Train run {name}: {status}, {self.train_runs}" for name, status in self.train.items()]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON data."""
        return asdict(self)


def find_pages(cluster: Cluster, run: Path) -> Pages:
    """The pages of the run in a folder, as the cluster's nodes see it.

    :raises InputError: nobody on the cluster has worked in this folder.
    """
    trained = [found for found in cluster.ask(TRAIN_RUNS)["train_runs"] if _folder(found) == str(run)]
    job_id, job = _last_job(cluster, run, trained)
    if job is None:
        known = sorted({str(job.run) for job in cluster.jobs() if job.run})
        raise InputError("no job of this run", where=cluster.address.url, found=run, allowed=", ".join(known) or "none is there")
    of_job = [found for found in trained if found["job_id"] == job["job_id"]]
    datasets = cluster.ask(f"/api/data/datasets/{job['job_id']}")["datasets"] if job["job_id"] else []
    return Pages(
        job=job_id,
        state=job["status"],
        job_page=f"{cluster.address.url}/#/jobs/{job_id}",
        train_runs=f"{cluster.address.url}{TRAIN_RUNS}",
        train={found["name"]: found["status"] for found in of_job},
        datasets=tuple(found["dataset"] for found in datasets),
    )


def _last_job(cluster: Cluster, run: Path, trained: list[Any]) -> tuple[str, Any]:
    """A submitted job says where it works; a driver that trains is found by what it told Ray Train."""
    submitted = [job.id for job in cluster.jobs() if job.run == run and not job.is_helper]
    found = [(name, cluster.ask(f"/api/jobs/{name}")) for name in submitted]
    known = {job["job_id"] for _, job in found}
    found += [(one["job_id"], one["job_details"]) for one in trained if one["job_id"] not in known]
    return max(found, key=lambda one: one[1]["start_time"] or 0, default=("", None))


def _folder(train_run: Any) -> str | None:
    folder = ((train_run["run_settings"] or {}).get("train_loop_config") or {}).get("folder")
    return None if folder is None else str(folder)
