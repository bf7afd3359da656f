"""C source to object file: find a compiler, keep what it made, say what was wrong.

>>> from pytest_bpf.compile import compile_source
>>> compile_source(Path("count.bpf.c")).object  # doctest: +SKIP
PosixPath('/home/me/.cache/pytest-bpf/objects/count-8c2f0a5d1e3b4f67.bpf.o')
"""

from __future__ import annotations

from pytest_bpf.compile.build import Compiled, compile_source
from pytest_bpf.compile.compilers import Compiler, find

__all__ = ["Compiled", "Compiler", "compile_source", "find"]
