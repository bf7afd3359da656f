"""execnet's worker, compiled before the machine is saved.

execnet sends as text what its worker is, and what pytest-xdist runs there. Compiling that takes a
guest a third of a second; the same text has the same code.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_bpf.vm.guest import warm

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType

WORKER = "execnet.gateway_base"
SESSION = "xdist.remote"

CODE: dict[str, CodeType] = {}
"""The code of each text."""

ABSENT: list[str] = []
"""What the worker would import, and is not installed."""


class NotInstalled:
    """Says of modules that they are not there, of each once (``importlib.abc.MetaPathFinder``).

    The first import of each is that of the worker; Python would read every folder of its path.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise `ModuleNotFoundError`, or leave it to the others."""
        del path, target
        if name in self._names:
            self._names.remove(name)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def prepare() -> None:
    """Compile what will be sent."""
    for name in (WORKER, SESSION):
        with suppress(ImportError, OSError):
            module = importlib.import_module(name)
            text = inspect.getsource(module)
            file = "<string>" if name == WORKER else inspect.getsourcefile(module)
            CODE[text] = builtins.compile(text, file or name, "exec")
    ABSENT.extend(name for name in warm.OPTIONAL if name not in sys.modules)


def install(names: dict[str, Any]) -> None:
    """Let what runs with the global ``names`` find the code; other text is compiled as ever."""

    def run(source: Any, given: dict[str, Any] = names) -> None:
        for text, code in CODE.items():
            if isinstance(source, str) and source.startswith(f"{text}\n"):
                plain_exec(code, given)
                return plain_exec(source[len(text) :], given)
        return plain_exec(source, given)

    def compile_text(source: Any, *arguments: Any) -> Any:
        known = CODE.get(source[:-1]) if isinstance(source, str) else None
        if known:
            sys.meta_path.insert(0, NotInstalled(ABSENT))
        return known or builtins.compile(source, *arguments)

    plain_exec = builtins.exec
    if CODE:
        names["exec"], names["compile"] = run, compile_text
