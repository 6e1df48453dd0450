"""From a scan and a node table to units of work, which depend on nothing but input and settings; and early rejections."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mtids_dist.data.prepare_config import PrepareConfig
from mtids_dist.data.private import LookupRow, Private
from mtids_dist.data.rejections import NodeReason, Rejection
from mtids_dist.data.splits import assign_folds, seeded_order
from mtids_dist.data.writer import part_name
from mtids_dist.dicom import Node, NodeTable, Scan, Series, Skipped

MIN_PARTS_PER_FOLD = 4
"""So that shuffling files does something, and several workers have one each, in small cohorts too."""


@dataclass(frozen=True)
class CropJob:
    """One crop to cut: the node's labels under its pseudonyms, and which of the unit's series it lies in."""

    row: int
    series: int
    position_mm: tuple[float, float, float]
    patient_hash: str
    series_hash: str
    node_hash: str
    station: str | None
    metastasis: int | None
    short_axis_mm: float | None


@dataclass(frozen=True)
class Unit:
    """The crops of one part file. `id` changes with anything that its contents depend on."""

    id: str
    fold: int
    number: int
    series: tuple[Series, ...]
    jobs: tuple[CropJob, ...]
    crop: int
    spacing_mm: float
    max_outside: float

    @property
    def name(self) -> str:
        """The name of its part file."""
        return part_name(self.fold, self.number)


@dataclass(frozen=True)
class Plan:
    """Node rows = crops that the units hold + `rejected` of kind node; skipped files = `rejected` of kind file."""

    units: tuple[Unit, ...]
    rejected: tuple[Rejection, ...]
    lookup: tuple[LookupRow, ...]


@dataclass(frozen=True)
class Planner:
    """Makes the plan; `folder` is what paths are named relative to."""

    scan: Scan
    table: NodeTable
    folder: Path
    config: PrepareConfig
    private: Private

    @cached_property
    def series(self) -> dict[str, Series]:
        """UID -> usable series."""
        return {series.uid: series for series in self.scan.series}

    @cached_property
    def skipped(self) -> dict[str, Skipped]:
        """UID -> one skipped file of it."""
        return {skipped.series_uid: skipped for skipped in self.scan.skipped if skipped.series_uid}

    def plan(self) -> Plan:
        """Units in order of fold and number."""
        rejected = [Rejection(kind="node", item=None, row=r.row, reason=r.reason, detail=r.detail) for r in self.table.rejected]
        rejected += [self._rejected_file(skipped) for skipped in self.scan.skipped]
        usable = []
        for node in self.table.nodes:
            problem = self._problem(node)
            if problem is None:
                usable.append(node)
            else:
                rejected.append(problem)
        return Plan(tuple(self._units(usable)), tuple(rejected), tuple(self._lookup()))

    def _rejected_file(self, skipped: Skipped) -> Rejection:
        item = self.private.file(self._relative(skipped.path))
        return Rejection(kind="file", item=item, row=None, reason=skipped.reason.value, detail=skipped.detail)

    def _relative(self, path: Path) -> str:
        return os.fsencode(path.relative_to(self.folder)).decode(errors="backslashreplace")

    def _problem(self, node: Node) -> Rejection | None:
        series, skipped = self.series.get(node.series_uid), self.skipped.get(node.series_uid)
        if series is None and skipped is not None:
            detail = skipped.reason.value + (f": {skipped.detail}" if skipped.detail else "")
            return self._rejected_node(node, NodeReason.SERIES_SKIPPED, detail)
        if series is None:
            return self._rejected_node(node, NodeReason.SERIES_NOT_FOUND, "no file has this series_instance_uid")
        if self.config.match_patient and series.patient_id not in ("", node.patient_id):
            return self._rejected_node(node, NodeReason.PATIENT_MISMATCH, "patient_id is not the PatientID of the series")
        return None

    def _rejected_node(self, node: Node, reason: NodeReason, detail: str) -> Rejection:
        item = self.private.pseudonyms.node(node.series_uid, node.node_id)
        return Rejection(kind="node", item=item, row=node.row, reason=reason.value, detail=detail)

    def _units(self, nodes: Sequence[Node]) -> Iterable[Unit]:
        of_group: defaultdict[str, list[Node]] = defaultdict(list)
        for node, group in zip(nodes, _patient_groups(nodes), strict=True):
            of_group[group].append(node)
        strata = {group: [_strata(node) for node in members] for group, members in of_group.items()}
        config = self.config
        fold_of = assign_folds(strata, folds=config.folds, test_share=config.test_share, seed=config.seed)
        of_fold: defaultdict[int, list[Node]] = defaultdict(list)
        for group in sorted(of_group, key=lambda name: seeded_order(name, config.seed)):
            of_fold[fold_of[group]] += sorted(of_group[group], key=lambda n: (n.series_uid, n.row))
        for fold in sorted(of_fold):
            for number, part in enumerate(_split(of_fold[fold], config.rows_per_part)):
                yield self._unit(fold, number, part)

    def _unit(self, fold: int, number: int, nodes: Sequence[Node]) -> Unit:
        uids = list(dict.fromkeys(node.series_uid for node in nodes))
        config, series = self.config, tuple(self.series[uid] for uid in uids)
        contents = {
            "settings": config.model_dump(mode="json"),
            "fold": fold,
            "nodes": [astuple(node) for node in nodes],
            "series": [(s.origin_mm, s.axes, s.spacing_mm, s.shape, [self._relative(path) for path in s.paths]) for s in series],
        }
        return Unit(
            id=self.private.fingerprint("unit", json.dumps(contents)),
            fold=fold,
            number=number,
            series=series,
            jobs=tuple(self._job(node, uids.index(node.series_uid)) for node in nodes),
            crop=config.crop,
            spacing_mm=config.spacing_mm,
            max_outside=config.max_outside,
        )

    def _job(self, node: Node, series: int) -> CropJob:
        names = self.private.pseudonyms
        return CropJob(
            row=node.row,
            series=series,
            position_mm=node.position_mm,
            patient_hash=names.patient(node.patient_id),
            series_hash=names.series(node.series_uid),
            node_hash=names.node(node.series_uid, node.node_id),
            station=node.station,
            metastasis=node.metastasis,
            short_axis_mm=node.short_axis_mm,
        )

    def _lookup(self) -> Iterable[LookupRow]:
        names = self.private.pseudonyms
        for node in self.table.nodes:
            yield LookupRow("patient", names.patient(node.patient_id), node.patient_id)
            yield LookupRow("series", names.series(node.series_uid), node.series_uid)
            yield LookupRow("node", names.node(node.series_uid, node.node_id), f"{node.series_uid} {node.node_id}")
        for skipped in self.scan.skipped:
            path = self._relative(skipped.path)
            yield LookupRow("file", self.private.file(path), path)


def _strata(node: Node) -> tuple[str, str]:
    return f"station={node.station}", f"metastasis={node.metastasis}"


def _split(nodes: Sequence[Node], rows_per_part: int) -> list[Sequence[Node]]:
    """Consecutive parts of nearly equal length."""
    parts = min(len(nodes), max(MIN_PARTS_PER_FOLD, ceil(len(nodes) / rows_per_part)))
    borders = np.linspace(0, len(nodes), parts + 1).astype(int)
    return [nodes[first:stop] for first, stop in pairwise(borders)]


def _patient_groups(nodes: Sequence[Node]) -> list[str]:
    """For each node the name of its patient, or of all patients that share a series with it: these must share a fold."""
    patients = {name: i for i, name in enumerate(sorted({node.patient_id for node in nodes}))}
    series = {uid: i for i, uid in enumerate(sorted({node.series_uid for node in nodes}), start=len(patients))}
    row = [patients[node.patient_id] for node in nodes]
    column = [series[node.series_uid] for node in nodes]
    shape = (len(patients) + len(series),) * 2
    _, group = connected_components(coo_array((np.ones(len(nodes)), (row, column)), shape=shape), directed=False)
    first_name = {group[i]: name for name, i in reversed(patients.items())}
    return [first_name[group[i]] for i in row]
