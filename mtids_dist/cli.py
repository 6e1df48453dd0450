"""The command line: each verb checks its arguments and makes one call."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from mtids_dist import __version__
from mtids_dist.console import TrainingDisplay, console, errors, evaluation_table, progress_bar, say
from mtids_dist.errors import MTIDSError

app = typer.Typer(
    name="mtids-dist",
    help="Multi-task training on medical images, at scale: MT-IDS with DBR and DD-GB on Ray and DeepSpeed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Run = Annotated[Path, typer.Argument(help="a run description, for example configs/demo.yaml", metavar="RUN.yaml")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="override one setting: a.b=c", metavar="KEY=VALUE")]
Config = Annotated[Path | None, typer.Option("--config", help="a run description to take settings from", metavar="RUN.yaml")]
Address = Annotated[str | None, typer.Option(help="a Ray cluster; a private local Ray by default")]


def _keep_stdout(as_json: bool) -> bool:
    """Where a machine reads the answer, what a person is told on the way goes to stderr."""
    console.stderr = as_json
    return as_json


AsJson = Annotated[bool, typer.Option("--json", help="print the answer as JSON", callback=_keep_stdout)]


def _epilog(example: str) -> str:
    return f"Example: [bold]{example}[/bold]"


@app.command(epilog=_epilog("mtids-dist phantom runs/phantom --patients 20 --seed 7"))
def phantom(
    out: Annotated[Path, typer.Argument(help="folder for dicom/ and nodes.csv", metavar="OUT")],
    patients: Annotated[int | None, typer.Option(help="number of patients")] = None,
    seed: Annotated[int | None, typer.Option(help="the same seed gives the same bytes")] = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Write a synthetic chest CT cohort as real DICOM files, with its node table."""
    from mtids_dist.dicom import make_phantom

    with progress_bar("phantom") as bar:
        table = make_phantom(out, patients=patients, seed=seed, config=_settings(config, overrides).phantom, progress=bar)
    say(f"wrote {table.parent / 'dicom'} and {table} (synthetic; not from any person)")


@app.command(epilog=_epilog("mtids-dist prepare archive/ nodes.csv store/ --crop 48 --spacing-mm 1.0"))
def prepare(
    dicom: Annotated[Path, typer.Argument(help="folder of CT series, any layout", metavar="DICOM")],
    nodes: Annotated[Path, typer.Argument(help="node table (CSV)", metavar="NODES")],
    store: Annotated[Path, typer.Argument(help="folder of the store", metavar="STORE")],
    crop: Annotated[int | None, typer.Option(help="voxels along each edge of a crop")] = None,
    spacing_mm: Annotated[float | None, typer.Option(help="isotropic voxel spacing")] = None,
    config: Config = None,
    overrides: Overrides = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Turn CT series and a node table into a Parquet store of crops; run it again to go on after an interruption."""
    from mtids_dist.data import prepare as prepare_store
    from mtids_dist.ray_session import ray_session

    given = [f"prepare.{name}={value}" for name, value in (("crop", crop), ("spacing_mm", spacing_mm)) if value is not None]
    settings = _settings(config, [*(overrides or []), *given]).prepare
    with ray_session(address), progress_bar("prepare") as bar:
        summary = prepare_store(dicom, nodes, store, settings, progress=bar)
    _answer(summary, as_json)


@app.command(epilog=_epilog("mtids-dist inspect store/ --montage crops.png"))
def inspect(
    store: Annotated[Path, typer.Argument(help="folder of a store", metavar="STORE")],
    montage: Annotated[Path | None, typer.Option(help="write a picture of some crops here (PNG)")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a store holds: rows, patients and labels a fold, what is missing, what was rejected and why."""
    from mtids_dist.data import draw_montage, open_store, summarise

    opened = open_store(store)
    _answer(summarise(opened), as_json)
    if montage is not None:
        draw_montage(opened, montage)
        say(f"wrote {montage}")


@app.command(epilog=_epilog("mtids-dist dataset lidc-readings runs/lidc/store"))
def dataset(
    name: Annotated[str, typer.Argument(help="lidc-readings", metavar="NAME")],
    store: Annotated[Path, typer.Argument(help="folder of the store", metavar="STORE")],
    as_json: AsJson = False,
) -> None:
    """Make a store from a public data set."""
    from mtids_dist.data import make_dataset, open_store, summarise

    with progress_bar(name) as bar:
        make_dataset(name, store, progress=bar)
    _answer(summarise(open_store(store)), as_json)


@app.command(epilog=_epilog("mtids-dist train configs/demo.yaml --set train.epochs=5 --set run=runs/short"))
def train(run: Run, overrides: Overrides = None, address: Address = None) -> None:
    """Train, or go on from the run folder's last checkpoint. Ctrl-C and SIGTERM leave a checkpoint (exit code 3)."""
    from mtids_dist.config import load_run
    from mtids_dist.embedded import phantom_store
    from mtids_dist.ray_session import ray_session
    from mtids_dist.train import check_job, open_run
    from mtids_dist.train import train as fit

    config = load_run(run, overrides or [])
    workers = config.train.scale.workers
    if config.data.store is None:
        with ray_session(address, workers=workers), progress_bar("no data.store: phantom cohort") as bar:
            config = phantom_store(config, progress=bar)
    check_job(config.job())
    if open_run(config.folder, config.resolved()):
        say(f"{config.run} has finished; for another run: --set run=FOLDER")
        return
    with ray_session(address, workers=workers), TrainingDisplay() as display:
        fit(config.job(), config.folder, on_line=display)
    say(f"trained: {config.folder.weights}")


@app.command(epilog=_epilog("mtids-dist tune configs/tune-demo.yaml --set tune.members=6"))
def tune(run: Run, overrides: Overrides = None, address: Address = None, as_json: AsJson = False) -> None:
    """Search expert counts and other settings, or go on with an interrupted search. The winner is RUN/best, a run folder."""
    from mtids_dist.config import load_run
    from mtids_dist.console import SearchDisplay
    from mtids_dist.embedded import phantom_store
    from mtids_dist.ray_session import ray_session
    from mtids_dist.report import write_report
    from mtids_dist.train import check_job, open_run
    from mtids_dist.tune import History, SearchFolder, check_space, search

    config = load_run(run, overrides or [])
    workers = config.train.scale.workers
    check_space(config.job(), config.tune)
    if config.data.store is None:
        with ray_session(address, workers=workers), progress_bar("no data.store: phantom cohort") as bar:
            config = phantom_store(config, progress=bar)
    check_job(config.job())
    folder = SearchFolder(config.run)
    # More epochs would make other generations; a run's folder is no place for a search.
    open_run(folder, config.resolved(), fixed=("train.epochs",), others=("metrics.jsonl",))
    if folder.best.weights.exists():
        winner = History.open(folder.history).best
        say(f"{config.run} has finished; for another search: --set run=FOLDER")
    else:
        with ray_session(address, workers=workers), SearchDisplay(config.tune.budget) as display:
            winner = search(config.job(), config.tune, folder, config.resolved(), on_line=display)
        say(f"winner: {folder.best.path}; lineage: {write_report(folder.path)}")
    if as_json:
        typer.echo(json.dumps({"best": str(folder.best.path), "winner": winner}, indent=1))


@app.command(epilog=_epilog("mtids-dist evaluate runs/demo/run runs/demo/store --split test"))
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


@app.command(epilog=_epilog("mtids-dist report runs/demo/run"))
def report(folder: Annotated[Path, typer.Argument(help="a run or search folder", metavar="DIR")]) -> None:
    """Draw a run or search folder as one self-contained page, report.html; a search's lineage lies beside it as lineage.png."""
    from mtids_dist.report import write_report

    say(f"wrote {write_report(folder)}")


@app.command(epilog=_epilog("mtids-dist config configs/demo.yaml --set model.shared_experts=4"))
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
    settings = _settings(run, overrides)
    counts = settings.model.num_params(settings.num_classes)
    typer.echo(yaml.safe_dump(settings.resolved(), sort_keys=False) + f"# {counts}")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _settings(path: Path | None, overrides: list[str] | None) -> Any:
    from mtids_dist.config import load_run, parse_run, with_overrides

    if path is not None:
        return load_run(path, overrides or [])
    return parse_run(with_overrides({}, overrides or []), where="--set")


def _answer(result: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result.to_json(), indent=1))
    else:
        say(str(result))


def main() -> None:
    """Entry point: expected failures are one line on stderr and their own exit code."""
    try:
        code = app(standalone_mode=False)
    except MTIDSError as error:
        errors.print(f"mtids-dist: {error}", markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        errors.print("mtids-dist: interrupted")
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # what typer raises for bad arguments
            raise
        errors.print(f"mtids-dist: {' '.join(error.format_message().split())}", markup=False)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)
