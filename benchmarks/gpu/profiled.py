"""What the device did in some steps, as torch's profiler saw it: kernels, and the share of time with one of them under way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from device import Device
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

STEPS = 4
COPIES = ("Memcpy", "Memset")


def kernels_and_busy(step: Callable[[], object], device: Device) -> tuple[float, float]:
    """Return kernels a step, and the share of wall time (0 to 1) that the device was busy, over a few steps.

    The profiler itself takes the host time, so that the share is a lower bound where the host is what the device waits for.
    On a CPU operations stand in for kernels, only so that the code can be tried.
    """
    step()  # the profiler's own first events are slow
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.is_gpu else [])]) as seen:
        device.wait()
        began = time.perf_counter()
        for _ in range(STEPS):
            step()
        device.wait()
        wall_s = time.perf_counter() - began
    events = on_device(seen.events() or (), device)
    kernels = sum(not event.name.startswith(COPIES) for event in events)
    busy_us = covered((event.time_range.start, event.time_range.end) for event in events)
    return kernels / STEPS, min(1.0, busy_us / 1e6 / wall_s)


def on_device(events: Iterable[Any], device: Device) -> list[Any]:
    """Return what ran on the device. Annotations are no work: one of a whole optimizer step spans its idle time too."""
    kind = DeviceType.CUDA if device.is_gpu else DeviceType.CPU
    return [event for event in events if event.device_type == kind and not getattr(event, "is_user_annotation", False)]


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return how much of a line the intervals (start, end) cover; what lies under several counts once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
