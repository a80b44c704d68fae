"""PNG files: corruption that their checksums show."""

from __future__ import annotations

import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# A gigabyte in chunks of the size that encoders use has a quarter of this.
_MAX_CHUNKS = 500_000


def find_png_corruption(data: bytes) -> str:
    """Return what is wrong with a PNG's chunks, or "": decoders ignore some corruption that the checksums show.

    Other files have no chunks, and so no corruption.
    """
    if not data.startswith(_SIGNATURE):
        return ""
    at = len(_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if at + 12 > len(data):
            break
        size = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 12 + size
        if end > len(data):
            break
        # Chunks with a lower-case first letter contain metadata, not pixels.
        if kind[:1].isupper() and zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            return f"is corrupted: wrong checksum in the chunk {kind.decode('latin-1')}"
        if kind == b"IEND":
            return ""
        at = end
    else:
        return f"has more than {_MAX_CHUNKS:,} chunks"
    return "is truncated: the PNG has no IEND chunk"
