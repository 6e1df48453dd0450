"""Is the pixel data of a slice there and whole? Told from lengths alone, without reading a pixel."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

UNDEFINED_LENGTH = 0xFFFFFFFF
ITEM_TAG = (0xFFFE, 0xE000)
PIXEL_DATA_TAG = 0x7FE00010


@dataclass(slots=True)
class PixelElement:
    """Where the pixel data of a file begins and how long its header says that it is.

    Its method `met` is the `stop_when` of `pydicom.filereader.read_partial`: reading stops there.
    """

    stream: BinaryIO
    length: int | None = None
    offset: int = 0

    def met(self, tag: int, _vr: str | None, length: int) -> bool:
        """True as soon as reading reaches the pixel data, whose length and place are then noted."""
        if tag != PIXEL_DATA_TAG:
            return False
        self.length, self.offset = length, self.stream.tell()
        return True

    def shortfall(self, expected_bytes: int, file_bytes: int, *, deflated: bool) -> int:
        """How many bytes are missing (0: none) of `expected_bytes` decoded, or of what compressed fragments announce."""
        if self.length is None:
            return expected_bytes
        if self.length == UNDEFINED_LENGTH:
            return self._missing_of_fragments(file_bytes)
        # A deflated data set was inflated in memory: its file size says nothing, and a short stream fails to inflate.
        held = self.length if deflated else min(self.length, file_bytes - self.offset)
        return max(0, expected_bytes - held)

    def _missing_of_fragments(self, file_bytes: int) -> int:
        """Bytes by which the last fragment runs past the end of the file; 1 if there is no fragment at all (PS3.5 A.4)."""
        self.stream.seek(self.offset)
        items = 0
        while len(header := self.stream.read(8)) == 8:
            group, element, length = struct.unpack("<HHL", header)
            if (group, element) != ITEM_TAG:
                break
            items += 1
            end = self.stream.tell() + int(length)
            if end > file_bytes:
                return end - file_bytes
            self.stream.seek(end)
        return 0 if items > 1 else 1  # the first item is the offset table
