"""The verb that says where a run can be watched, and writes what Prometheus and Grafana need for it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from mtids_dist.cli.app import AsJson, app, epilog
from mtids_dist.cli.jobs import Dashboard
from mtids_dist.console import say


@app.command(epilog=epilog("mtids-dist dashboard runs/first --address http://head:8265 --write monitoring/"))
def dashboard(
    run_dir: Annotated[Path | None, typer.Argument(help="a run folder, as the cluster's nodes see it", metavar="RUN_DIR")] = None,
    address: Dashboard = None,
    write: Annotated[Path | None, typer.Option(help="write Prometheus' and Grafana's files there", metavar="FOLDER")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="where Prometheus finds the cluster's token, if it has one", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say where Ray's dashboard shows a run, and write the files by which Prometheus and Grafana find the cluster."""
    from mtids_dist.observe import find_pages, write_monitoring
    from mtids_dist.submit import choose_address, connect, find_token

    chosen = choose_address(address, os.environ)
    pages = find_pages(connect(chosen, find_token(os.environ)), run_dir.absolute()) if run_dir else None
    written = write_monitoring(write, chosen.url, token_file) if write else None
    if as_json:
        found = {"dashboard": chosen.url, "run": pages and pages.to_json(), "written": written and str(written)}
        typer.echo(json.dumps(found, indent=1))
        return
    say(f"Ray's dashboard: {chosen.url}")
    if pages:
        say(str(pages))
    if written:
        say(f"wrote {written}: prometheus.yml, rules/, grafana/")
