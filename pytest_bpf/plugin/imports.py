"""Our own modules are imported as Python does it, not by pytest.

pytest imports a plugin's modules by a hook that rewrites their assertions, and takes three times as
long. Here are some two hundred modules, whose assertions no user sees.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    import pytest

PACKAGE = "pytest_bpf."


class PlainFinder:
    """Finds what is below the package, and nothing else (``importlib.abc.MetaPathFinder``)."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of ours is; None for others."""
        return PathFinder.find_spec(name, path, target) if name.startswith(PACKAGE) else None


def import_plainly(config: pytest.Config) -> None:
    """Have them imported so for as long as this session lasts."""
    finder = PlainFinder()
    sys.meta_path.insert(0, finder)
    config.add_cleanup(lambda: sys.meta_path.remove(finder))
