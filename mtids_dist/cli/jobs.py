"""Verbs that run other verbs on a Ray cluster, and what one does with them there."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtids_dist.cli.app import AsJson, answer, app, checks, epilog
from mtids_dist.console import ask, job_table, notice, progress_bar

if TYPE_CHECKING:
    from mtids_dist.submit import Cluster

INTERRUPTED = 130
GRACE_S = 300.0
HERE = ("submit", "jobs", "dashboard")
"""What talks to a cluster; every other verb can be sent to one."""
LISTED = 10
"""Files that are named one by one before they are sent; a dry run names all."""
QUESTION = "[d]etach, [s]top the job, or go on [w]atching?"

jobs = typer.Typer(help="Jobs on a Ray cluster: list, status, logs, stop, fetch.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")

Dashboard = Annotated[
    str | None,
    typer.Option(
        help="the cluster's dashboard; else RAY_API_SERVER_ADDRESS, an http RAY_ADDRESS, this machine's",
        metavar="http://HEAD:8265",
    ),
]
JobId = Annotated[str, typer.Argument(help="the id that submit printed", metavar="ID")]
Words = Annotated[list[str], typer.Argument(help="a verb and its arguments, or: exec -- COMMAND", metavar="VERB ARGS...")]
Environment = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        help="for the job and its workers; may be repeated; $NAME is filled in there; no secrets: every job can read it",
        metavar="KEY=VALUE",
    ),
]


@app.command(
    context_settings={"ignore_unknown_options": True},
    epilog=epilog("mtids-dist submit train run.yaml --set train.epochs=50 --address http://head:8265 --follow"),
)
def submit(
    words: Words,
    address: Dashboard = None,
    follow: Annotated[bool, typer.Option("--follow", help="stream the log; exit with the job's own exit code")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print exactly what would be sent, contact nobody")] = False,
    job_id: Annotated[str | None, typer.Option("--id", help="of the job; by default made of what runs")] = None,
    working_dir: Annotated[Path, typer.Option(help="folder that is sent, and that relative paths lie in")] = Path(),
    environment: Environment = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="leave out too, as in .gitignore; may be repeated", metavar="PATTERN")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="send though it would be left out, as in .gitignore", metavar="PATTERN")
    ] = None,
    max_upload_mib: Annotated[float, typer.Option(help="refuse to send more", min=0.0)] = 100.0,
    send_package: Annotated[bool, typer.Option("--send-package", help="send mtids_dist, which the cluster lacks")] = False,
) -> int:
    """Run any verb (prepare, train, tune, evaluate, ...; their arguments as always), or exec -- any command, as a job on a Ray
    cluster. Options of submit stand before or after the verb; -- ends them.
    """
    from mtids_dist.submit import Submission, call_of, list_upload, own_package, read_environment, send

    call = call_of(words, _verbs(), working_dir, checks=checks)
    upload = list_upload(working_dir, exclude=exclude or [], include=include or [], named=tuple(call.reads.values()))
    upload.refuse_above(max_upload_mib)
    call.check_sent(upload)
    submission = Submission(
        call=call,
        upload=upload,
        environment=read_environment(environment or []),
        package=own_package() if send_package else None,
        given_id=job_id,
    )
    if dry_run:
        typer.echo(json.dumps(submission.to_json(), indent=1))
        return 0
    cluster = _cluster(address)
    sent = send(cluster, submission, before_upload=lambda: notice(*upload.lines(LISTED)))
    notice(str(sent))
    if follow:
        return _follow(cluster, sent.job.id)
    typer.echo(sent.job.id)
    return 0


@jobs.command("list", epilog=epilog("mtids-dist jobs list --address http://head:8265"))
def list_jobs(address: Dashboard = None, as_json: AsJson = False) -> None:
    """List what was submitted to a cluster."""
    found = [job.to_json() for job in _cluster(address).jobs() if not job.is_helper]
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        typer.echo(job_table(found) if found else "no jobs")


@jobs.command(epilog=epilog("mtids-dist jobs status train-first-1a2b3c4d"))
def status(job_id: JobId, address: Dashboard = None, as_json: AsJson = False) -> None:
    """Say where a job stands."""
    answer(_cluster(address).known_job(job_id), as_json)


@jobs.command(epilog=epilog("mtids-dist jobs logs train-first-1a2b3c4d --follow"))
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", help="until the job is over; exit with its own exit code")] = False,
    address: Dashboard = None,
    as_json: AsJson = False,
) -> int:
    """Print what a job has written, or follow it to its end."""
    cluster = _cluster(address)
    job = cluster.known_job(job_id)
    if follow and not as_json:
        return _follow(cluster, job_id)
    log = cluster.log(job_id)
    typer.echo(json.dumps({**job.to_json(), "log": log}, indent=1) if as_json else log, nl=as_json)
    return 0


@jobs.command(epilog=epilog("mtids-dist jobs stop train-first-1a2b3c4d --grace 600"))
def stop(
    job_id: JobId,
    grace: Annotated[float, typer.Option(help="seconds that a run may take to write its checkpoint", min=0.0)] = GRACE_S,
    address: Dashboard = None,
    as_json: AsJson = False,
) -> int:
    """Stop a job: its run writes a checkpoint first, and the same description goes on from it. What has not ended after --grace,
    and what has no run to keep, Ray ends: SIGTERM, then SIGKILL (a run has 120 s for it). Exit code 0: no run lost anything.
    """
    from mtids_dist.submit import stop as stop_job

    stopped = stop_job(_cluster(address), job_id, grace_s=grace, say=notice)
    answer(stopped, as_json)
    return stopped.code


@jobs.command(epilog=epilog("mtids-dist jobs fetch train-first-1a2b3c4d --out results/first"))
def fetch(
    job_id: JobId,
    out: Annotated[
        Path | None,
        typer.Option(help="a new folder, or one that was fetched before; by default of the run's name", metavar="FOLDER"),
    ] = None,
    checkpoints: Annotated[bool, typer.Option("--checkpoints", help="and what the run would go on from")] = False,
    address: Dashboard = None,
    as_json: AsJson = False,
) -> None:
    """Bring a job's run folder here: description, versions, metrics, evaluation, report and weights."""
    from mtids_dist.submit import fetch as fetch_run

    cluster = _cluster(address)
    job = cluster.known_job(job_id)
    with progress_bar("fetch") as bar:
        fetched = fetch_run(cluster, job, out, states=checkpoints, progress=bar)
    answer(fetched, as_json)


def _verbs() -> dict[str, Any]:
    """Every verb that can be sent, with its parser."""
    commands: dict[str, Any] = getattr(typer.main.get_command(app), "commands")  # noqa: B009 - only a group has them
    return {name: command for name, command in commands.items() if name not in HERE}


def _cluster(typed: str | None) -> Cluster:
    """The cluster that is meant, seen to answer."""
    from mtids_dist.submit import choose_address, connect, find_token

    address = choose_address(typed, os.environ)
    cluster = connect(address, find_token(os.environ))
    if address.note:
        notice(address.note)
    return cluster


def _follow(cluster: Cluster, job_id: str) -> int:
    """The log until the job is over; its exit code. Ctrl-C asks what is meant by it."""
    from mtids_dist.submit import Follower
    from mtids_dist.submit import stop as stop_job

    follower = Follower(cluster, job_id, _write, say=notice)
    while True:
        try:
            job = follower.follow()
        except KeyboardInterrupt:
            choice = ask(f"\n{QUESTION}", otherwise="d")
            if choice == "d":
                notice(f"detached; {job_id} goes on: mtids-dist jobs logs {job_id} --follow --address {cluster.address.url}")
                return INTERRUPTED
            if choice == "s":
                stop_job(cluster, job_id, grace_s=GRACE_S, say=notice)
            continue
        notice(str(job), *([job.hint] if job.hint else []))
        return job.code


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
