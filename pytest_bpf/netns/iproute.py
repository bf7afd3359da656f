"""pyroute2's ``IPRoute``, without the three quarters of pyroute2 that it does not need."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
import threading
from contextlib import contextmanager
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec

PACKAGE = "pyroute2"
LATE = "pyroute2.netlink.rtnl.tcmsg."
"""Modules of qdiscs, classes and filters, one of each kind, that pyroute2 keeps in a table."""

PUBLIC = {"__all__", "__version__"}
"""The names with underscores that a package itself defines; others are asked for by tools."""


class LateModule(ModuleType):
    """A module that runs when a name of it is asked for that is no module of it.

    The modules of a late package can be imported before it runs, and are the same ones after. See
    "Implementing lazy imports" in the documentation of `importlib`, whose own loader runs
    ``__init__`` for a module of the package, too, and a module when it is imported once more.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in PUBLIC:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module = f"{self.__name__}.{name}"
        if hasattr(self, "__path__") and name not in PUBLIC and importlib.util.find_spec(module):
            return importlib.import_module(module)
        with _lock:
            if type(self) is LateModule and self not in _running:
                _run(self)
        return ModuleType.__getattribute__(self, name)


_lock = threading.RLock()
_running: list[ModuleType] = []


def _run(module: ModuleType) -> None:
    loader: Loader = vars(module)["__loader__"]
    _running.append(module)
    try:
        loader.exec_module(module)
    finally:
        _running.remove(module)
    module.__class__ = ModuleType


def _delay(name: str) -> None:
    """Let a package that was not imported before run its ``__init__`` late."""
    spec = importlib.util.find_spec(name) if name not in sys.modules else None
    if spec is not None:
        package = importlib.util.module_from_spec(spec)
        package.__class__ = LateModule
        sys.modules.setdefault(name, package)


class _LateLoader:
    """Makes a module as its own loader does, and lets it run late."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        spec.loader = module.__loader__ = self._loader
        module.__class__ = LateModule


class _LateFinder:
    """Finds the modules that are to run late."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, _: object = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name.startswith(LATE) else None
        if spec is not None and spec.loader is not None:
            spec.loader = _LateLoader(spec.loader)  # type: ignore[assignment]
        return spec


@contextmanager
def _late_modules() -> Iterator[None]:
    """Let the modules of `LATE` that are imported in here run late."""
    finder = _LateFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def iproute(path: str) -> Any:
    """Return an ``IPRoute`` of the network namespace at ``path``.

    The package pyroute2 imports all of its own (NDB, nftables, 9P, ...) at once, in 0.1 s of CPU
    time; of that, this is less than half. The rest is imported when the user asks for a name of it,
    as in ``from pyroute2 import NDB``, and each kind of qdisc and filter by its first use.
    """
    _delay(PACKAGE)
    collects = gc.isenabled()
    gc.disable()  # what an import makes stays; looking for garbage takes a seventh of the time
    try:
        with _late_modules():
            from pyroute2.iproute import IPRoute  # noqa: PLC0415 - by its first user
    except ImportError:  # a version whose modules need all of it
        from pyroute2 import IPRoute  # noqa: PLC0415 - by its first user
    finally:
        if collects:
            gc.enable()

    return IPRoute(netns=path)
