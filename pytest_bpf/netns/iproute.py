"""pyroute2's ``IPRoute``, without the three quarters of pyroute2 that it does not need."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any

PACKAGE = "pyroute2"
PUBLIC = {"__all__", "__version__"}
"""The names with underscores that the package itself defines; others are asked for by tools."""


class LatePackage(ModuleType):
    """A package whose ``__init__`` runs when a name of it is asked for that is no module.

    Its modules can be imported before, and are the same ones after. See "Implementing lazy
    imports" in the documentation of `importlib`, whose own loader runs ``__init__`` for a module of
    the package, too.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in PUBLIC:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module = f"{self.__name__}.{name}"
        if name not in PUBLIC and importlib.util.find_spec(module):
            return importlib.import_module(module)
        with _lock:
            if type(self) is LatePackage and not _running:
                _run(self)
        return ModuleType.__getattribute__(self, name)


_lock = threading.RLock()
_running: list[ModuleType] = []


def _run(package: ModuleType) -> None:
    spec = package.__spec__
    assert spec is not None
    assert spec.loader is not None
    _running.append(package)
    try:
        spec.loader.exec_module(package)
    finally:
        _running.clear()
    package.__class__ = ModuleType


def _delay(name: str) -> None:
    """Let a package that was not imported before run its ``__init__`` late."""
    spec = importlib.util.find_spec(name) if name not in sys.modules else None
    if spec is not None:
        package = importlib.util.module_from_spec(spec)
        package.__class__ = LatePackage
        sys.modules.setdefault(name, package)


def iproute(path: str) -> Any:
    """Return an ``IPRoute`` of the network namespace at ``path``.

    The package pyroute2 imports all of its own (NDB, nftables, 9P, ...) at once, in 0.1 s of CPU
    time; of that, this is the half. The rest is imported when the user asks for a name of it, as
    in ``from pyroute2 import NDB``.
    """
    _delay(PACKAGE)
    collects = gc.isenabled()
    gc.disable()  # what an import makes stays; looking for garbage takes a seventh of the time
    try:
        from pyroute2.iproute import IPRoute  # noqa: PLC0415 - by its first user
    except ImportError:  # a version whose modules need all of it
        from pyroute2 import IPRoute  # noqa: PLC0415 - by its first user
    finally:
        if collects:
            gc.enable()

    return IPRoute(netns=path)
