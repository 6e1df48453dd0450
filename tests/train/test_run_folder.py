"""One run, one folder: begun, gone on with, refused when it is another's."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtids_dist.errors import InputError
from mtids_dist.train import MetricsLog, RunFolder, check_run, open_run

DESCRIPTION = {"seed": 1, "model": {"shared_experts": 2}, "train": {"epochs": 3, "scale": {"workers": 2}}}


def test_a_run_is_begun_and_gone_on_with(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert not check_run(folder, DESCRIPTION)
    assert not folder.path.exists(), "a check writes nothing"
    open_run(folder, DESCRIPTION)
    open_run(folder, DESCRIPTION)
    folder.weights.touch()
    assert not check_run(folder, DESCRIPTION), "weights alone do not say for how many epochs they were trained"
    MetricsLog(folder.metrics).append("event", event="finished", step=30, epoch=3)
    assert check_run(folder, DESCRIPTION)
    assert not check_run(folder, {**DESCRIPTION, "train": {"epochs": 4, "scale": {"workers": 2}}}), "it is given more epochs"


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(folder, DESCRIPTION)
    with pytest.raises(InputError, match=r"another model\.shared_experts; found 3, was 2"):
        check_run(folder, {**DESCRIPTION, "model": {"shared_experts": 3}})


def test_scale_and_length_may_change(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(folder, DESCRIPTION)
    assert not check_run(folder, {**DESCRIPTION, "train": {"epochs": 9, "scale": {"workers": 4}}})


def test_a_stop_is_asked_of_one_session_only(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(folder, DESCRIPTION)
    folder.stop_flag.touch()
    open_run(folder, DESCRIPTION)
    assert not folder.stop_flag.exists()


def test_a_folder_may_move_with_its_description(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(folder, {**DESCRIPTION, "run": "there"})
    assert not check_run(folder, {**DESCRIPTION, "run": "here"})


def test_what_has_finished_keeps_its_description(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(folder, DESCRIPTION)
    folder.weights.touch()
    MetricsLog(folder.metrics).append("event", event="finished", step=30, epoch=3)
    before = folder.description.read_text()
    assert check_run(folder, {**DESCRIPTION, "train": {"epochs": 1, "scale": {"workers": 2}}})
    assert folder.description.read_text() == before


def test_what_a_verb_holds_fast_may_not_change(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(folder, DESCRIPTION)
    with pytest.raises(InputError, match=r"another train\.epochs; found 9, was 3"):
        check_run(folder, {**DESCRIPTION, "train": {"epochs": 9, "scale": {"workers": 2}}}, fixed=("train.epochs",))


def test_runs_and_searches_do_not_share_a_folder(tmp_path: Path) -> None:
    open_run(RunFolder(tmp_path / "search"), DESCRIPTION)
    (tmp_path / "search" / "history.jsonl").touch()
    with pytest.raises(InputError, match=r"of another verb; found history\.jsonl"):
        check_run(RunFolder(tmp_path / "search"), DESCRIPTION)


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_is_no_folder(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="no folder can be made here"):
        check_run(RunFolder(tmp_path / "file" / below), DESCRIPTION)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="something else"):
        check_run(RunFolder(tmp_path), DESCRIPTION)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
