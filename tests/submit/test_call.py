"""What a job would run: the verb's words untouched, and everything that is wrong with them known before contact."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from command_line import CommandLine
from hypothesis import given
from hypothesis import strategies as st

from mtids_dist.cli import app
from mtids_dist.cli.app import checks
from mtids_dist.cli.jobs import HERE
from mtids_dist.errors import InputError
from mtids_dist.submit import call_of, list_upload

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
VERBS = {name: command for name, command in COMMANDS.items() if name not in HERE}


@pytest.fixture
def dashboard() -> Iterator[tuple[str, socket.socket]]:
    """A port that notices whoever comes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", listening


def test_options_of_submit_hide_none_of_a_verb() -> None:
    def options(command: object) -> set[str]:
        return {option for parameter in command.params for option in parameter.opts if option.startswith("-")}  # type: ignore[attr-defined]

    for name, verb in VERBS.items():
        if hasattr(verb, "params"):
            # A job's address is always its own cluster's.
            assert options(verb) & options(COMMANDS["submit"]) <= {"--address", "--help"}, name


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1))
def test_a_command_reaches_the_shell_as_it_was_typed(words: list[str]) -> None:
    call = call_of(["exec", *words], VERBS, Path(), checks=checks)
    assert shlex.split(call.entrypoint) == words
    assert call.run is None
    assert call.environment == {"MTIDS_DIST_ADDRESS": "auto"}


def test_a_verb_runs_with_its_own_arguments(work: Path) -> None:
    words = ["--set", "train.epochs=5", "run.yaml", "--set", "run=/shared/runs/x y"]
    call = call_of(["train", *words], VERBS, work, checks=checks)
    assert call.words == ("python", "-m", "mtids_dist", "train", *words)
    assert call.run == Path("/shared/runs/x y")
    assert call.environment["MTIDS_DIST_ADDRESS"] == "auto"
    assert int(call.environment["RAY_JOB_STOP_WAIT_TIME_S"]) > 60, "time for a checkpoint after Ray's stop"
    call.check_sent(list_upload(work))


def test_paths_are_relative_to_the_folder_that_is_sent(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call = call_of(["train", "./run.yaml"], VERBS, Path("work"), checks=checks)
    assert call.run == Path("/shared/runs/first")
    call.check_sent(list_upload(Path("work")))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["prepare", "archive", "/shared/nodes.csv", "/shared/store"], "DICOM"),
        (["prepare", "/shared/archive", "nodes.csv", "/shared/store"], "NODES"),
        (["prepare", "/shared/archive", "/shared/nodes.csv", "store"], "STORE"),
        (["evaluate", "/shared/run", "/shared/store", "--out", "here"], "--out"),
        (["phantom", "out"], "OUT"),
    ],
)
def test_a_relative_path_that_the_job_would_not_find_is_refused(work: Path, words: list[str], told: str) -> None:
    with pytest.raises(InputError, match=f"submit {words[0]}: {told}: .*absolute path"):
        call_of(words, VERBS, work, checks=checks).check_sent(list_upload(work))


def test_a_table_that_is_sent_may_be_relative(work: Path) -> None:
    (work / "nodes.csv").touch()
    call_of(["prepare", "/shared/archive", "nodes.csv", "/shared/store"], VERBS, work, checks=checks).check_sent(
        list_upload(work)
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "missing argument"),
        (["trian", "run.yaml"], "did you mean train?"),
        (["submit", "train"], "no such verb"),
        (["exec"], "no command"),
        (["train"], "RUN.yaml"),
        (["train", "run.yaml", "--sett", "a=b"], "--sett"),
        (["train", "run.yaml", "and", "more"], "unexpected extra argument"),
        (["prepare", "/a", "/b", "/c", "--crop", "many"], "--crop"),
        (["train", "no.yaml"], "no such run description"),
        (["train", "run.yaml", "--set", "trian.epochs=2"], "did you mean train?"),
        (["tune", "run.yaml", "--set", "train.epochs=none"], "train.epochs"),
        (["tune", "run.yaml", "--set", "tune.generations=3", "--set", "train.epochs=4"], "a multiple of tune.generations"),
        (["prepare", "/a", "/b", "/c", "--config", "no.yaml"], "no such run description"),
        (["train", "run.yaml", "--set", "run=runs/x"], "run is a relative path"),
        (["train", "run.yaml", "--set", "data.store=store"], "data.store is a relative path"),
        (["train", "run.yaml", "--set", "train.init_from=w.safetensors"], "work/w.safetensors"),
        (["train", "run.yaml", "--env", "NCCL_SOCKET_IFNAME"], "no KEY=VALUE"),
        (["train", "run.yaml", "--env", "RAY_ADDRESS=http://head:8265"], "Ray sets this variable itself"),
        (["train", "run.yaml", "--max-upload-mib", "-1"], "--max-upload-mib"),
        (["train", "run.yaml", "--id", "a/b"], "no valid id"),
        (["train", "run.yaml", "--working-dir", "gone"], "gone"),
        (["train", "run.yaml", "--max-upload-mib", "0.00001"], "run.yaml"),
        (["train", "run.yaml", "--address", "ray://head:10001"], "ray://head:10001"),
    ],
)
def test_what_is_wrong_is_told_before_contact(
    cli: CommandLine, work: Path, dashboard: tuple[str, socket.socket], words: list[str], told: str
) -> None:
    address, listening = dashboard
    given_address = [] if "--address" in words else ["--address", address]
    assert told.lower() in cli.refused("submit", *words, *given_address).lower()
    with pytest.raises(BlockingIOError):
        listening.accept()
