"""The default where no data are named: the phantom cohort, made and prepared inside the run folder."""

from __future__ import annotations

from mtids_dist.config import RunConfig
from mtids_dist.data import Progress, no_progress, prepare
from mtids_dist.dicom import make_phantom


def phantom_store(config: RunConfig, *, progress: Progress = no_progress) -> RunConfig:
    """`config` with `data.store` set to a phantom store beside the run folder, made now if it is not there yet."""
    home = config.run.with_name(config.run.name + "-phantom")
    table = make_phantom(home, config=config.phantom, progress=lambda done, total: progress(done, total, "patients"))
    prepare(table.parent / "dicom", table, home / "store", config.prepare, progress=progress)
    return config.model_copy(update={"data": config.data.model_copy(update={"store": home / "store"})})
