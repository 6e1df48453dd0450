"""The device that is measured: waiting for it, its memory, and what it is called."""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import dataclass

import torch

GIB = 1 << 30


@dataclass(frozen=True)
class Device:
    """A GPU, or a CPU that only stands in for one.

    :param name: cuda | cpu.
    """

    name: str

    @property
    def is_gpu(self) -> bool:
        """Say whether there is anything to wait for."""
        return self.name == "cuda"

    def wait(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.is_gpu:
            torch.cuda.synchronize()

    def held_gib(self) -> float:
        """Return GiB of tensors that are alive on the GPU; forgets the peak, and what nobody refers to any more."""
        gc.collect()
        if not self.is_gpu:
            return 0.0
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / GIB

    def peak_gib(self) -> float:
        """Return the most GiB of tensors that were alive at once since `held_gib`."""
        return torch.cuda.max_memory_allocated() / GIB if self.is_gpu else 0.0

    def described(self) -> dict[str, str]:
        """Return the card, its driver, and the versions that it ran with."""
        import deepspeed

        card = torch.cuda.get_device_name() if self.is_gpu else "a CPU, which says nothing about a GPU"
        return {
            "card": card,
            "driver": driver() if self.is_gpu else "-",
            "torch": torch.__version__,
            "cuda": torch.version.cuda if self.is_gpu and torch.version.cuda else "-",
            "deepspeed": deepspeed.__version__,
            "python": sys.version.split()[0],
            "tf32": f"convolutions {allowed(torch.backends.cudnn.allow_tf32)}, "
            f"matrix products {allowed(torch.backends.cuda.matmul.allow_tf32)}",
        }


def allowed(tf32: bool) -> str:
    """Put a switch in words."""
    return "in TF32" if tf32 else "not in TF32"


def driver() -> str:
    """Return the version of NVIDIA's driver, or that nvidia-smi does not tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"
