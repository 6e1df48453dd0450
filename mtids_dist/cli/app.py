"""The typer app, what its verbs have in common, and how they end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtids_dist.console import console, errors, say
from mtids_dist.errors import MTIDSError

if TYPE_CHECKING:
    from mtids_dist.config import RunConfig

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
Address = Annotated[str | None, typer.Option(help="a Ray cluster; a private local Ray by default", envvar="MTIDS_DIST_ADDRESS")]


checks: dict[str, Callable[[RunConfig], None]] = {}
"""Verb -> what it refuses in a description whose settings are each valid; also asked before the verb is sent anywhere."""


def _keep_stdout(as_json: bool) -> bool:
    """Where a machine reads the answer, what a person is told on the way goes to stderr."""
    console.stderr = as_json
    return as_json


AsJson = Annotated[bool, typer.Option("--json", help="print the answer as JSON", callback=_keep_stdout)]


def epilog(example: str) -> str:
    """The example at the end of a verb's help."""
    return f"Example: [bold]{example}[/bold]"


def settings_of(path: Path | None, overrides: list[str] | None) -> Any:
    """The run description in a file, or the defaults, with overrides laid over it."""
    from mtids_dist.config import load_run, parse_run, with_overrides

    if path is not None:
        return load_run(path, overrides or [])
    return parse_run(with_overrides({}, overrides or []), where="--set")


def answer(result: Any, as_json: bool) -> None:
    """A verb's result, for a person or for a machine."""
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
        if said := " ".join(error.format_message().split()):  # nothing where a bare group has just shown its help
            errors.print(f"mtids-dist: {said}", markup=False)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)
