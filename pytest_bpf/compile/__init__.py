"""C source to object file: find a compiler, keep what it made, say what was wrong.

>>> from pytest_bpf.compile import compile_source
>>> compile_source(Path("count.bpf.c")).object  # doctest: +SKIP
PosixPath('/home/me/.cache/pytest-bpf/objects/count-8c2f0a5d1e3b4f67.bpf.o')
"""

from __future__ import annotations

from pytest_bpf.compile.build import CompiledObject, compile_command, compile_source
from pytest_bpf.compile.compilers import Compiler, find_compiler
from pytest_bpf.compile.diagnostics import warnings_in
from pytest_bpf.compile.project import BuildCommand
from pytest_bpf.compile.source_compiler import (
    Compilation,
    CompileOptions,
    SourceCompiler,
    is_source,
    is_text,
    show_warnings,
)

__all__ = [
    "BuildCommand",
    "Compilation",
    "CompileOptions",
    "CompiledObject",
    "Compiler",
    "SourceCompiler",
    "compile_command",
    "compile_source",
    "find_compiler",
    "is_source",
    "is_text",
    "show_warnings",
    "warnings_in",
]
