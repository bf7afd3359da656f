"""Names that C++ and Rust compilers mangle, as they are in the source."""

from __future__ import annotations

import ctypes
import difflib
import importlib
import re
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_void_p
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.sys import libc

if TYPE_CHECKING:
    from collections.abc import Iterable

LIBRARIES = ("libstdc++.so.6", "libc++abi.so.1")
"""Those that have ``__cxa_demangle``."""

RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
MOST = 20_000
"""Names of one binary that are looked at."""


@cache
def _demangle() -> Any:
    """Return the C++ library's function, or None where there is no such library."""
    for name in LIBRARIES:
        try:
            function = getattr(ctypes.CDLL(name), "__cxa_demangle")
        except (OSError, AttributeError):
            continue
        function.argtypes = (c_char_p, c_char_p, POINTER(c_size_t), POINTER(c_int))
        function.restype = c_void_p
        return function
    return None


@cache
def _demangle_rust() -> Any:
    """Return the function of the package demangle, or None where that is not installed."""
    try:
        return importlib.import_module("demangle").demangle
    except ImportError:
        return None


def source_name(name: str) -> str:
    """Return a mangled name as it is in the source, any other name as it is.

    Those of Rust lose their hash; its newer ones (v0, ``_R...``) need ``pytest-bpf[symbols]``.
    Where there is no C++ library, those of ``_Z...`` are not changed.
    """
    if name.startswith("_R"):
        rust = _demangle_rust()
        return str(rust(name)) if rust else name
    function = _demangle() if name.startswith("_Z") else None
    if function is None:
        return name
    address = function(name.encode(), None, None, None)
    if not address:
        return name
    text = ctypes.string_at(address).decode(errors="replace")
    libc.library().free(c_void_p(address))
    return RUST_HASH.sub("", text)


def near_source_names(name: str, mangled: Iterable[str]) -> str:
    """Return ``"; did you mean '_ZN4demo5parseEi' (demo::parse(int))?"``, or ""."""
    readable: dict[str, str] = {}
    for number, each in enumerate(mangled):
        if number >= MOST:
            break
        text = source_name(each)
        if text != each:
            readable.setdefault(text, each)
            readable.setdefault(text.partition("(")[0], each)
            readable.setdefault(text.partition("(")[0].rpartition("::")[2], each)
    close = difflib.get_close_matches(name, readable, n=3)
    symbols = dict.fromkeys(readable[text] for text in close)
    shown = [f"{symbol!r} ({source_name(symbol)})" for symbol in symbols]
    return f"; did you mean {' or '.join(shown)}?" if shown else ""


def unread_names(mangled: Iterable[str]) -> str:
    """Return what to install where there are names of Rust that nothing here reads, or ""."""
    if _demangle_rust() or not any(name.startswith("_R") for name in mangled):
        return ""
    return "; names of Rust (_R...) are read with pip install 'pytest-bpf[symbols]'"
