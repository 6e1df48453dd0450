"""Multi-task training of lymph-node networks on Ray and DeepSpeed, after MT-IDS (Ma et al., 2026)."""

__version__ = "0.1.0"
