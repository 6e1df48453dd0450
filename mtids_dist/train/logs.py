"""Keeps Ray's, DeepSpeed's and the workers' own words out of the user's way and in a log file."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path


def log_to_file(folder: Path, name: str) -> None:
    """Sends every logger of this process to `folder`/`name`.log; what other libraries hung on their loggers is taken off."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / f"{name}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.captureWarnings(capture=True)
    warnings.simplefilter("default")
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for logger in (logging.getLogger(name) for name in list(logging.root.manager.loggerDict)):
        for old in [h for h in logger.handlers if isinstance(h, logging.StreamHandler) and h.stream in (sys.stdout, sys.stderr)]:
            logger.removeHandler(old)
            logger.propagate = True
