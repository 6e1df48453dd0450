"""A trunk from a file: an own checkpoint with other tasks, published ResNet weights, and files that are neither."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import TASKS
from monai.networks.nets.resnet import resnet10, resnet18
from safetensors.torch import save_file

from mtids_dist.errors import InputError
from mtids_dist.model import MTIDS, load_trunk

MONAI_AS_PUBLISHED = {
    "resnet10": lambda: resnet10(n_input_channels=1, feed_forward=False, shortcut_type="B", bias_downsample=False),
    "resnet18": lambda: resnet18(n_input_channels=1, feed_forward=False, shortcut_type="A"),
}


def own_checkpoint(path: Path, **settings: Any) -> MTIDS:
    torch.manual_seed(1)
    model = MTIDS({"malignancy": 2, "texture": 5}, **{"shared_experts": 4} | settings)
    save_file(model.state_dict(), path)
    return model


def published(path: Path, net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """As MedicalNet publishes: under `state_dict`, names of DataParallel, with the segmentation head it was trained with."""
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm3d)):
        torch.nn.init.uniform_(norm.weight)
    tensors = net.state_dict()
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": t for name, t in (tensors | {"conv_seg.0.weight": torch.ones(3)}).items()}},
        path,
    )
    return tensors


def test_an_own_checkpoint_with_other_tasks_starts_the_trunk_and_nothing_else(tmp_path: Path) -> None:
    source = own_checkpoint(tmp_path / "model.safetensors")
    torch.manual_seed(2)
    model = MTIDS(TASKS)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    report = load_trunk(model, tmp_path / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name] if name.startswith("trunk.") else before[name])
    trunk = model.trunk.state_dict()
    assert report.loaded == tuple(trunk)
    assert (report.missing, report.left, report.batch_norm) == ((), (), False)
    assert report.parameters == report.of == sum(t.numel() for t in trunk.values())
    assert str(report) == f"{tmp_path / 'model.safetensors'}: loaded 9 tensors, 62,632 of the trunk's 62,632 parameters"


@pytest.mark.parametrize("depth", ["resnet10", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_published_weights_fill_the_whole_trunk_and_batch_norm_is_said(tmp_path: Path, depth: str) -> None:
    torch.manual_seed(3)
    tensors = published(tmp_path / "resnet.pth", MONAI_AS_PUBLISHED[depth]())
    model = MTIDS(TASKS, trunk=depth)
    report = load_trunk(model, tmp_path / "resnet.pth")
    assert report.missing == ()
    assert report.parameters == report.of
    assert report.batch_norm
    for name, tensor in model.trunk.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name
    statistics = [name for name in tensors if name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert {entry.name for entry in report.left} == {*statistics, "conv_seg.0.weight"}
    assert "statistics of batch norm" in str(report)
    assert "became group norm" in str(report)
    assert "\n" not in str(report)


def test_tensors_of_another_shape_are_kept_and_said(tmp_path: Path) -> None:
    published(tmp_path / "rgb.pth", resnet10(n_input_channels=3, feed_forward=True, num_classes=7, bias_downsample=False))
    model = MTIDS(TASKS, trunk="resnet10")
    kept = model.trunk.conv1.weight.clone()
    report = load_trunk(model, tmp_path / "rgb.pth")
    assert torch.equal(model.trunk.conv1.weight, kept)
    assert [entry.name for entry in report.missing] == ["conv1.weight"]
    assert report.missing[0].reason == "shape [64, 3, 7, 7, 7] in the file, [64, 1, 7, 7, 7] in the trunk"
    assert {"fc.weight", "fc.bias"} <= {entry.name for entry in report.left}
    assert report.of - report.parameters == kept.numel()


class Payload:
    """An object whose unpickling makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Payload(tmp_path / "made")}, tmp_path / "payload.pth")
    with pytest.raises(InputError, match="can't be read as weights"):
        load_trunk(MTIDS(TASKS), tmp_path / "payload.pth")
    assert not (tmp_path / "made").exists()


def wrong_files(folder: Path) -> dict[str, Path]:
    files = {
        name: folder / name for name in ("text.pth", "text.safetensors", "empty.pth", "tensor.pth", "other.pth", "deeper.pth")
    }
    files["text.pth"].write_text("not weights")
    files["text.safetensors"].write_text("not weights")
    files["empty.pth"].touch()
    torch.save(torch.zeros(3), files["tensor.pth"])
    torch.save({"encoder.weight": torch.zeros(3)}, files["other.pth"])
    published(files["deeper.pth"], MONAI_AS_PUBLISHED["resnet18"]())
    own_checkpoint(folder / "small.safetensors")
    return files | {"small": folder / "small.safetensors", "missing": folder / "missing.pth", "folder": folder}


@pytest.mark.slow
def test_a_wrong_file_is_one_line_and_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(4)
    model = MTIDS(TASKS, trunk="resnet10")
    before = {name: t.clone() for name, t in model.state_dict().items()}
    for name, path in wrong_files(tmp_path).items():
        with pytest.raises(InputError) as caught:
            load_trunk(model, path)
        assert str(path) in str(caught.value), name
        assert "\n" not in str(caught.value), name
        assert all(torch.equal(t, before[key]) for key, t in model.state_dict().items()), name
    with pytest.raises(InputError, match=r"block layer1\.1 has no place in it"):
        load_trunk(model, tmp_path / "deeper.pth")
