"""What the synthetic cohort can be told: how many patients, how they are scanned, what their nodes are like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from mtids_dist.settings import Settings
from mtids_dist.stations import MEDIASTINAL

Share = Annotated[float, Field(ge=0.0, le=1.0)]


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"the lower limit stands first, found {limits[0]} > {limits[1]}")
    return limits


def _known_stations(weights: Mapping[str, float]) -> Mapping[str, float]:
    if unknown := sorted(set(weights) - set(MEDIASTINAL)):
        raise ValueError(f"unknown station {unknown[0]}, allowed: {', '.join(MEDIASTINAL)}")
    if not any(weight > 0 for weight in weights.values()):
        raise ValueError("at least one station needs a weight above 0")
    return weights


PositiveRange = Annotated[
    tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]],
    AfterValidator(_ordered),
]
CountRange = Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(_ordered)]

UNEVEN = {"2R": 0.9, "2L": 0.8, "3A": 0.8, "3P": 0.7, "4R": 1.4, "4L": 1.1, "5": 1.0, "6": 0.9, "7": 1.4, "8": 0.9, "9": 0.8}
"""Default frequencies of the stations: 4R and 7 are the commonest, as in practice; the rest is nearly even."""


class PhantomConfig(Settings):
    """A synthetic chest CT cohort. Every draw follows from these settings, the seed and the patient's index alone."""

    patients: PositiveInt = 12
    """Number of patients, one series each."""
    seed: NonNegativeInt = 0
    """The same seed (and settings) gives the same bytes."""
    nodes: CountRange = (6, 8)
    """Lymph nodes of a patient, least and most. Up to 11 lie in different stations."""
    matrix: Annotated[int, Field(ge=32, le=1024)] = 512
    """Rows and columns of a slice."""
    field_of_view_mm: PositiveRange = (340.0, 400.0)
    """Edge of the square slice, least and most."""
    slice_spacing_mm: PositiveRange = (1.0, 2.5)
    """Distance between slices, least and most."""
    noise_hu: PositiveRange = (8.0, 20.0)
    """Standard deviation of the image noise of a patient, least and most."""
    contrast_hu: PositiveRange = (110.0, 220.0)
    """Attenuation of the blood in the aorta, least and most."""
    patient_scale: PositiveRange = (0.9, 1.1)
    """Size of a patient against the mean adult, least and most."""
    landmark_shift_mm: NonNegativeFloat = 2.5
    """Standard deviation by which each organ's position differs between patients."""
    metastasis_share: Share = 0.4
    """Share of metastatic nodes; the same in every station."""
    metastasis_clustering: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.35
    """Correlation of metastasis between two nodes of a patient: disease spreads in some patients and not in others."""
    station_weights: Annotated[Mapping[str, NonNegativeFloat], AfterValidator(_known_stations)] = UNEVEN
    """Relative frequency of each station; stations left out do not occur."""
    missing_metastasis: Share = 0.05
    """Share of nodes whose metastasis cell is empty."""
    missing_station: Share = 0.02
    """Share of nodes whose station cell is empty."""
    reader_error_mm: NonNegativeFloat = 0.4
    """Standard deviation of the reader's error in the short axis written."""
    prone_share: Share = 0.1
    """Share of patients scanned prone, so that rows and columns run the other way."""
