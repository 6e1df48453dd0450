"""Verbs that train, search, measure and tell of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from mtids_dist import __version__
from mtids_dist.cli.app import Address, AsJson, Overrides, Run, app, checks, epilog, settings_of
from mtids_dist.console import SearchDisplay, TrainingDisplay, evaluation_table, progress_bar, rehearsal_table, say
from mtids_dist.errors import InputError
from mtids_dist.observe import Tracker

if TYPE_CHECKING:
    from mtids_dist.config import RunConfig

Track = Annotated[list[Tracker] | None, typer.Option("--track", help="also write to a tracker, inside the run folder")]


Check = Annotated[
    bool, typer.Option("--check", help="only build everything and take one step; tell what was found, leave the run folder alone")
]


@app.command(epilog=epilog("mtids-dist train configs/demo.yaml --set train.epochs=5 --set run=runs/short"))
def train(
    run: Run,
    overrides: Overrides = None,
    address: Address = None,
    track: Track = None,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Train, or go on from the run folder's last checkpoint. Ctrl-C and SIGTERM leave a checkpoint (exit code 3)."""
    if as_json and not check:
        raise InputError("training itself has no answer to print", where="train --json", allowed="train --check --json")
    if check:
        _rehearse(run, overrides, address, track, as_json)
        return
    from mtids_dist.config import load_run
    from mtids_dist.embedded import phantom_store
    from mtids_dist.observe import check_trackers, each, observers, of_training
    from mtids_dist.ray_session import crowded, ray_session
    from mtids_dist.shared_storage import check_shared
    from mtids_dist.train import check_cluster, check_job, check_run, cpus_of, open_run
    from mtids_dist.train import train as fit

    check_trackers(track or [])

    config = load_run(run, overrides or [])
    workers = config.train.scale.workers
    if config.data.store is None:
        with ray_session(address, workers=workers), progress_bar("no data.store: phantom cohort") as bar:
            config = phantom_store(config, progress=bar)
    check_job(config.job())
    if check_run(config.folder, config.resolved()):
        say(f"{config.run} has finished; for another run: --set run=FOLDER")
        return
    watched = observers(config.run, on_cluster=address is not None, trackers=track or [], settings=config.resolved())
    with ray_session(address, workers=workers), TrainingDisplay() as display:
        check_cluster(config.train.scale)
        check_shared(**config.paths())
        open_run(config.folder, config.resolved())
        if full := crowded(cpus_of(config.train.scale)):
            say(full)
        with watched as watching:
            fit(config.job(), config.folder, on_line=each(display, of_training(watching)))
    say(f"trained: {config.folder.weights}")


def _rehearse(run: Path, overrides: Overrides, address: Address, track: Track, as_json: bool) -> None:
    """With fewer imports than training: they are most of the time that it takes."""
    from mtids_dist.config import load_run
    from mtids_dist.observe import check_trackers
    from mtids_dist.train import check_job, check_run, rehearse_here

    check_trackers(track or [])
    config = load_run(run, overrides or [])
    job, crop_shape = config.job(), config.data.crop_shape or (config.prepare.crop,) * 3
    if job.data.store is not None:
        check_job(job)
    check_run(config.folder, config.resolved())
    if address is None:
        found = rehearse_here(job, crop_shape=crop_shape).to_json()
    else:
        from mtids_dist.ray_session import ray_session
        from mtids_dist.shared_storage import check_shared
        from mtids_dist.train import rehearse_on_ray

        with ray_session(address):
            check_shared(writes={}, reads=config.paths()["reads"])  # a mark in the run folder would be written
            found = rehearse_on_ray(job, crop_shape=crop_shape).to_json()
    typer.echo(json.dumps(found, indent=1) if as_json else rehearsal_table(found))


@app.command(epilog=epilog("mtids-dist tune configs/tune-demo.yaml --set tune.members=6"))
def tune(run: Run, overrides: Overrides = None, address: Address = None, track: Track = None, as_json: AsJson = False) -> None:
    """Search expert counts and other settings, or go on with an interrupted search. The winner is RUN/best, a run folder."""
    from mtids_dist.config import load_run
    from mtids_dist.embedded import phantom_store
    from mtids_dist.observe import check_trackers, each, observers, of_search
    from mtids_dist.ray_session import crowded, ray_session
    from mtids_dist.report import write_report
    from mtids_dist.shared_storage import check_shared
    from mtids_dist.train import check_cluster, check_job, check_run, open_run
    from mtids_dist.tune import History, SearchFolder, search

    check_trackers(track or [])

    config = load_run(run, overrides or [])
    workers = config.train.scale.workers
    _check_search(config)
    if config.data.store is None:
        with ray_session(address, workers=workers), progress_bar("no data.store: phantom cohort") as bar:
            config = phantom_store(config, progress=bar)
    check_job(config.job())
    folder = SearchFolder(config.run)
    # More epochs would make other generations; a run's folder is no place for a search.
    check_run(folder, config.resolved(), fixed=("train.epochs",), others=("metrics.jsonl",))
    if folder.best.weights.exists():
        winner = History.open(folder.history).best
        say(f"{config.run} has finished; for another search: --set run=FOLDER")
    else:
        watched = observers(config.run, on_cluster=address is not None, trackers=track or [], settings=config.resolved())
        with ray_session(address, workers=workers), SearchDisplay(config.tune.budget) as display:
            check_cluster(config.train.scale)
            check_shared(**config.paths())
            open_run(folder, config.resolved())
            if full := crowded(math.inf):  # a search takes all that there is
                say(full)
            with watched as watching:
                on_line = each(display, of_search(watching))
                winner = search(config.job(), config.tune, folder, config.resolved(), on_line=on_line)
        say(f"winner: {folder.best.path}; lineage: {write_report(folder.path)}")
    if as_json:
        typer.echo(json.dumps({"best": str(folder.best.path), "winner": winner}, indent=1))


def _check_search(config: RunConfig) -> None:
    from mtids_dist.tune import check_space

    check_space(config.job(), config.tune)


checks["tune"] = _check_search


@app.command(epilog=epilog("mtids-dist evaluate runs/demo/run runs/demo/store --split test"))
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="a run folder, a checkpoint in it, or weights", metavar="CHECKPOINT")],
    store: Annotated[Path, typer.Argument(help="folder of a store", metavar="STORE")],
    split: Annotated[str | None, typer.Option(help="train, validation or test; test if the store has one")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the results; the run folder by default")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Measure a trained network on patients that it was not trained on, beside what size alone can tell."""
    from mtids_dist.trained import evaluate_checkpoint

    with progress_bar("evaluate") as bar:
        found = evaluate_checkpoint(checkpoint, store, split=split, out=out, overrides=overrides or [], progress=bar).document
    typer.echo(json.dumps(found, indent=1) if as_json else evaluation_table(found))


@app.command(epilog=epilog("mtids-dist report runs/demo/run"))
def report(folder: Annotated[Path, typer.Argument(help="a run or search folder", metavar="DIR")]) -> None:
    """Draw a run or search folder as one self-contained page, report.html; a search's lineage lies beside it as lineage.png."""
    from mtids_dist.report import write_report

    say(f"wrote {write_report(folder)}")


@app.command(epilog=epilog("mtids-dist config configs/demo.yaml --set model.shared_experts=4"))
def config(
    run: Annotated[Path | None, typer.Argument(help="a run description", metavar="RUN.yaml")] = None,
    overrides: Overrides = None,
    schema: Annotated[bool, typer.Option("--schema", help="print the JSON schema of a run description")] = False,
) -> None:
    """Print a run description with every default filled in and the model's parameter counts, or the JSON schema."""
    from mtids_dist.config import RunConfig

    if schema:
        typer.echo(json.dumps(RunConfig.model_json_schema(), indent=1))
        return
    settings = settings_of(run, overrides)
    counts = settings.model.num_params(settings.num_classes)
    typer.echo(yaml.safe_dump(settings.resolved(), sort_keys=False) + f"# {counts}")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)
