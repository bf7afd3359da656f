"""Test eBPF programs as easily as Python functions.

The public names are listed in ``__init__.pyi``. Each is imported when it is first used, so that the
installed but unused plugin costs a session almost nothing.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def _homes() -> dict[str, str]:
    """Return the module of each public name, as ``__init__.pyi`` lists them."""
    import ast  # noqa: PLC0415 (only for whoever uses a public name)
    from pathlib import Path  # noqa: PLC0415

    listing = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in listing.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def __dir__() -> list[str]:
    return sorted({*globals(), *_homes()})


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return ["__version__", *_homes()]
    if name.startswith("_") or name not in (homes := _homes()):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    value = globals()[name] = getattr(import_module(homes[name]), name)
    return value
