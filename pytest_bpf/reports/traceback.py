"""Where an error came from, as far as it concerns whoever wrote the test."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from types import CodeType, TracebackType

PACKAGE = str(Path(__file__).parents[1])
LIBRARY = sysconfig.get_path("stdlib")
"""Where Python's own modules are; in some places what others installed lies below it."""


def without_our_frames(traceback: TracebackType | None) -> TracebackType | None:
    """Return the traceback up to the last frame of the user's: the call that went wrong.

    Frames of this package and of Python's own modules, which this package may have called, are not.
    """
    frames = []
    while traceback is not None:
        frames.append(traceback)
        traceback = traceback.tb_next
    while len(frames) > 1 and not _is_users(frames[-1].tb_frame.f_code):
        frames.pop()
    trimmed: TracebackType | None = None
    for frame in reversed(frames):
        trimmed = TracebackType(trimmed, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return trimmed


def _is_users(code: CodeType) -> bool:
    file = code.co_filename
    of_python = file.startswith((LIBRARY, "<frozen ")) and "-packages" not in file
    return not of_python and not file.startswith(PACKAGE)
