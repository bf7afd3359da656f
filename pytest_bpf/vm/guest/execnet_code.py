"""execnet's worker, compiled before the machine is saved.

execnet sends as text what its worker is, and what pytest-xdist runs there. Compiling that takes a
guest a third of a second; the same text has the same code.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import CodeType

WORKER = "execnet.gateway_base"
SESSION = "xdist.remote"

CODE: dict[str, CodeType] = {}
"""The code of each text."""


def prepare() -> None:
    """Compile what will be sent."""
    for name in (WORKER, SESSION):
        with suppress(ImportError, OSError):
            module = importlib.import_module(name)
            text = inspect.getsource(module)
            file = "<string>" if name == WORKER else inspect.getsourcefile(module)
            CODE[text] = builtins.compile(text, file or name, "exec")


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
        return known or builtins.compile(source, *arguments)

    plain_exec = builtins.exec
    if CODE:
        names["exec"], names["compile"] = run, compile_text
