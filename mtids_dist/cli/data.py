"""Verbs that make data and look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtids_dist.cli.app import Address, AsJson, Config, Overrides, answer, app, epilog, settings_of
from mtids_dist.console import progress_bar, say


@app.command(epilog=epilog("mtids-dist phantom runs/phantom --patients 20 --seed 7"))
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
        table = make_phantom(out, patients=patients, seed=seed, config=settings_of(config, overrides).phantom, progress=bar)
    say(f"wrote {table.parent / 'dicom'} and {table} (synthetic; not from any person)")


@app.command(epilog=epilog("mtids-dist prepare archive/ nodes.csv store/ --crop 48 --spacing-mm 1.0"))
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
    from mtids_dist.observe import observers, of_crops
    from mtids_dist.ray_session import ray_session

    given = [f"prepare.{name}={value}" for name, value in (("crop", crop), ("spacing_mm", spacing_mm)) if value is not None]
    settings = settings_of(config, [*(overrides or []), *given]).prepare
    with ray_session(address), progress_bar("prepare") as bar, observers(store, on_cluster=address is not None) as watching:
        summary = prepare_store(dicom, nodes, store, settings, progress=bar, on_counts=of_crops(watching))
    answer(summary, as_json)


@app.command(epilog=epilog("mtids-dist inspect store/ --montage crops.png"))
def inspect(
    store: Annotated[Path, typer.Argument(help="folder of a store", metavar="STORE")],
    montage: Annotated[Path | None, typer.Option(help="write a picture of some crops here (PNG)")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a store holds: rows, patients and labels a fold, what is missing, what was rejected and why."""
    from mtids_dist.data import draw_montage, open_store, summarise

    opened = open_store(store)
    answer(summarise(opened), as_json)
    if montage is not None:
        draw_montage(opened, montage)
        say(f"wrote {montage}")


@app.command(epilog=epilog("mtids-dist dataset lidc-readings runs/lidc/store"))
def dataset(
    name: Annotated[str, typer.Argument(help="lidc-readings", metavar="NAME")],
    store: Annotated[Path, typer.Argument(help="folder of the store", metavar="STORE")],
    as_json: AsJson = False,
) -> None:
    """Make a store from a public data set."""
    from mtids_dist.data import make_dataset, open_store, summarise

    with progress_bar(name) as bar:
        make_dataset(name, store, progress=bar)
    answer(summarise(open_store(store)), as_json)
