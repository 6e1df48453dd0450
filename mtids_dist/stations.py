"""The IASLC lymph-node map: which stations lie in the mediastinum, and in which zone.

Source of the map: Rusch et al., "The IASLC lung cancer staging project: a proposal for a new international
lymph node map", J Thorac Oncol 4(5):568-577, 2009. Stations 10-14 are hilar or peripheral (the N1 side) and 1R/1L
supraclavicular (always N3): both are known to the taxonomy and lie outside the mediastinum.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType


class Zone(str, Enum):
    """The zones of the IASLC map, in its own words."""

    SUPRACLAVICULAR = "supraclavicular"
    UPPER = "upper"
    AP = "AP"
    SUBCARINAL = "subcarinal"
    LOWER = "lower"
    HILAR = "hilar"
    PERIPHERAL = "peripheral"


MEDIASTINAL = ("2R", "2L", "3A", "3P", "4R", "4L", "5", "6", "7", "8", "9")
MEDIASTINAL_ZONES = (Zone.UPPER, Zone.AP, Zone.SUBCARINAL, Zone.LOWER)

ZONE_OF = MappingProxyType(
    {
        **dict.fromkeys(("1R", "1L"), Zone.SUPRACLAVICULAR),
        **dict.fromkeys(("2R", "2L", "3A", "3P", "4R", "4L"), Zone.UPPER),
        **dict.fromkeys(("5", "6"), Zone.AP),
        "7": Zone.SUBCARINAL,
        **dict.fromkeys(("8", "9"), Zone.LOWER),
        **dict.fromkeys(("10R", "10L", "11R", "11L"), Zone.HILAR),
        **dict.fromkeys(("12R", "12L", "13R", "13L", "14R", "14L"), Zone.PERIPHERAL),
    }
)
STATIONS = tuple(ZONE_OF)


def normalise_station(label: str) -> str | None:
    """The map's own spelling of a station label (`" 4r"` -> `"4R"`, `"station 7"` -> `"7"`); None if there is no such station."""
    spelling = label.strip().upper().removeprefix("STATION").strip()
    return spelling if spelling in ZONE_OF else None
