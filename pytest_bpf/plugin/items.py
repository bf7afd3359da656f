"""What a test asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def uses_bpf(item: pytest.Item) -> bool:
    """Say whether a test asks for one of our fixtures."""
    names = getattr(item, "fixturenames", ())
    return any(name == "bpf" or name.startswith("bpf_") for name in names)
