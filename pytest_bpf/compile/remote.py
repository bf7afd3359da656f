"""Compiling for a process on another kernel: it asks, and the process that started it compiles.

What they say to each other is plain values, so any channel that carries those will do. A request
has the arguments of `compile_source` and the identity of the asking kernel's BTF; the BTF itself
is sent only when it is asked for, once per kernel and cache.
"""

from __future__ import annotations

import time
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.cache import open_cache
from pytest_bpf.compile.build import CompiledObject, compile_source
from pytest_bpf.compile.compilers import Compiler
from pytest_bpf.errors import BpfError, CompileError, UnavailableError
from pytest_bpf.kernel.btf import vmlinux_h

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Ask = Callable[[dict[str, Any]], dict[str, Any]]
    """Sends a request and returns the answer."""

KINDS: Mapping[str, type[BpfError]] = {
    "CompileError": CompileError,
    "UnavailableError": UnavailableError,
}


def compile_remotely(ask: Ask, source: str, arguments: dict[str, Any]) -> CompiledObject | None:
    """Have ``source`` compiled by whoever answers ``ask``; None when only we have its files.

    ``arguments`` are those of `compile_source`. The object is put into this process's cache.
    Raises what `compile_source` would.
    """
    start = time.perf_counter()
    request = _request(source, arguments)
    if request is None:
        return None
    answer = ask(request)
    if answer.get("wanted") == "btf":
        answer = ask(request | {"btf": vmlinux_h.RUNNING.read_bytes()})
    if "error" in answer:
        message, output = answer["message"], answer["output"]
        kind = KINDS.get(answer["error"], BpfError)
        raise kind(message, output) if kind is CompileError else kind(message)
    if "object" not in answer:
        return None
    cache = open_cache()
    path = cache.path("objects", answer["name"])
    if cache.read("objects", answer["name"]) != answer["object"]:
        cache.write(answer["object"], "objects", answer["name"])
    seconds = time.perf_counter() - start
    return CompiledObject(
        path, Path(answer["source"]), seconds, answer["cached"], answer["warnings"]
    )


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Compile what another process asked for, and return what it is told.

    A file that only the other one has is compiled as text; when that fails, the answer is empty,
    and the other one, who has the headers beside it too, compiles it.
    """
    here = True
    source, name, content = (request[key] for key in ("source", "name", "content"))
    try:
        if not all(Path(folder).is_dir() for folder in request["include_dirs"]):
            return {}
        if content is not None:
            path = Path(source)
            here = path.is_file() and path.read_bytes() == content
            name = name or path.name.removesuffix(".c").removesuffix(".bpf")
            source = path if here else f"{content.decode(errors='surrogateescape')}\n"
        btf = vmlinux_h.RUNNING
        if identity := request["identity"]:
            btf = open_cache().path("btf", identity[:16])
            if not open_cache().trusts(btf):
                if "btf" not in request:
                    return {"wanted": "btf"}
                open_cache().write(request["btf"], "btf", btf.name)
        compiler = request["compiler"]
        result = compile_source(
            source,
            name=name,
            include_dirs=request["include_dirs"],
            defines=request["defines"],
            flags=request["flags"],
            compiler=Compiler(*map(_hashable, compiler)) if compiler else None,
            btf=btf,
        )
        return {
            "object": result.object.read_bytes(),
            "name": result.object.name,
            "source": str(result.source),
            "cached": result.cached,
            "warnings": result.warnings,
        }
    except BpfError as error:
        if not here:
            return {}
        output = getattr(error, "output", "")
        return {"error": type(error).__name__, "message": str(error), "output": output}
    except Exception as error:  # noqa: BLE001 (the one who asks waits for an answer)
        message = f"the compiling process failed: {type(error).__name__}: {error}"
        return {"error": "BpfError", "message": message, "output": ""}


def _request(source: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Return the arguments as plain values; None when the source cannot be read."""
    content = None
    if "\n" not in source:
        try:
            content = Path(source).read_bytes()
            source = str(Path(source).absolute())
        except OSError:
            return None
    try:
        identity = vmlinux_h.identity(vmlinux_h.RUNNING)
    except UnavailableError:
        identity = ""
    compiler = arguments["compiler"]
    return {
        "source": source,
        "content": content,
        "name": arguments["name"],
        "include_dirs": [str(Path(folder).absolute()) for folder in arguments["include_dirs"]],
        "defines": {
            str(macro): value if value is None or type(value) is int else str(value)
            for macro, value in (arguments["defines"] or {}).items()
        },
        "flags": [str(flag) for flag in arguments["flags"]],
        "compiler": [_plain(value) for value in astuple(compiler)] if compiler else None,
        "identity": identity,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
