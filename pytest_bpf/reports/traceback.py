"""Where an error came from, as far as it concerns whoever wrote the test."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

PACKAGE = str(Path(__file__).parents[1])


def without_our_frames(traceback: TracebackType | None) -> TracebackType | None:
    """Return the traceback up to the last frame outside this package: the call that went wrong."""
    frames = []
    while traceback is not None:
        frames.append(traceback)
        traceback = traceback.tb_next
    while len(frames) > 1 and frames[-1].tb_frame.f_code.co_filename.startswith(PACKAGE):
        frames.pop()
    trimmed: TracebackType | None = None
    for frame in reversed(frames):
        trimmed = TracebackType(trimmed, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return trimmed
