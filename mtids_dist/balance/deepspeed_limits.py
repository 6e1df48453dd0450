"""What a balanced backward can't do with a DeepSpeed engine, said before the first step."""

from __future__ import annotations

from typing import Any


def check_engine(engine: Any) -> None:
    """Passes engines whose settings leave every task's gradient and the mean over all ranks intact.

    DeepSpeed's own activation checkpointing can't be seen here; it refuses `torch.autograd.grad` by itself. Use
    `torch.utils.checkpoint.checkpoint(..., use_reentrant=False)`.

    :raises ValueError: a setting that doesn't, with the reason.
    """
    for found, why in _limits(engine):
        if found:
            raise ValueError(f"gradients can't be balanced on this DeepSpeed engine: {why}")


def _limits(engine: Any) -> list[tuple[bool, str]]:
    return [
        (
            engine.fp16_enabled(),
            "fp16 is enabled, whose loss scale protects the one backward that DeepSpeed does, not the tasks' own; use bf16",
        ),
        (
            engine.torch_autocast_enabled(),
            "torch_autocast is enabled, which acts in DeepSpeed's own forward, which is not used; use bf16, or autocast yourself",
        ),
        (engine.pipeline_parallelism, "the model is a pipeline, whose stages each see a part of the shared parameters"),
        (engine.has_moe_layers, "the model has DeepSpeed MoE layers, whose gradients are not averaged over all ranks"),
        (engine.autotp_size() > 1, "tensor parallelism is on, so ranks hold different parameters"),
        (engine.sequence_parallel_size > 1, "sequence parallelism is on, so a gradient is not the mean over all ranks"),
        (bool(engine.zenflow), "ZenFlow is on, which updates parameters with gradients of earlier steps"),
    ]
