"""Where the entropy-coded data of a JPEG's scan end.

Nothing tells their length, so that every byte has to be looked at; NumPy looks at dozens at a time, in a third of
the time that a regular expression takes. It is imported by the workers that read files, not by the gateway.
"""

import numpy as np

_CHUNK = 128 * 1024  # bytes at a time: they, and what is noted of them, stay in a processor's second cache


def end_of_scan(data: bytes, start: int) -> int | None:
    """The place of the first marker from `start` on that ends a scan (ITU-T T.81, B.1.1.2 and B.1.1.5): 0xFF before
    anything but a zero (0xFF is data), D0 to D7 (a restart) or 0xFF (fill). None if there is none."""
    whole = np.frombuffer(data, np.uint8)
    noted = np.empty((2, _CHUNK), np.bool_)
    for at in range(start, len(data) - 1, _CHUNK):
        first = whole[at : min(at + _CHUNK, len(data) - 1)]
        second = whole[at + 1 : at + 1 + len(first)]
        found, nonzero = noted[:, : len(first)]
        np.equal(first, 0xFF, out=found)
        np.not_equal(second, 0, out=nonzero)
        np.logical_and(found, nonzero, out=found)
        if found.any():  # seldom, but for restarts
            places = found.nonzero()[0]
            codes = second[places]
            ends = places[(codes != 0xFF) & ((codes & 0xF8) != 0xD0)]
            if ends.size:
                return at + int(ends[0])
    return None
