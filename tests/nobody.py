"""Running a command without privilege."""

from __future__ import annotations

NOBODY = 65534
"""The user and the group without any rights."""

AS_NOBODY = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)
"""The beginning of a command run as nobody, who may read this checkout wherever it lies."""
