"""What the Python that has BCC runs: compile, load, hand over. Imports nothing of ours.

It speaks lines of JSON on the socket whose number is its argument: it is told the text and the
flags, tells the names of the functions, is told the types of those to load, and tells what it has
loaded, with the descriptors in the order of programs and maps.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from typing import Any

LOG_STATS, LOG_LEVEL = 4, 1
LOG_SIZE, WHOLE_LOG_SIZE = 1 << 16, (1 << 24) - 1
AT_ONCE = 200
"""Descriptors in one message: the kernel takes 253."""


class _Failure(Exception):  # noqa: N818 (it ends the work, and is an answer)
    """An answer that is an error."""


def main() -> None:
    """Serve one request."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    lines = channel.makefile("r")
    request = json.loads(lines.readline())
    fds: list[int] = []
    try:
        from bcc import lib  # type: ignore[import-not-found]  # noqa: PLC0415 (it says what it lacks)

        module = _compiled(lib, request)
        _send(channel, {"functions": _functions(lib, module)})
        types = json.loads(lines.readline())
        programs = [_program(lib, module, name, kind, fds) for name, kind in types.items()]
        answer: dict[str, Any] = {"programs": programs, "maps": _maps(lib, module, fds)}
    except ImportError as error:
        answer = {"error": "import", "message": str(error)}
    except _Failure as failure:
        answer = failure.args[0]
    _send(channel, answer)
    for at in range(0, len(fds), AT_ONCE) if "error" not in answer else ():
        socket.send_fds(channel, [b"\n"], fds[at : at + AT_ONCE])
    channel.shutdown(socket.SHUT_WR)
    os._exit(0)  # LLVM's own end takes its time


def _send(channel: socket.socket, answer: dict[str, Any]) -> None:
    channel.sendall(json.dumps(answer).encode() + b"\n")


def _compiled(lib: Any, request: dict[str, Any]) -> Any:
    flags = [flag.encode() for flag in request["cflags"]]
    array = (ctypes.c_char_p * len(flags))(*flags)
    text = request["text"].encode(errors="surrogateescape")
    module = lib.bpf_module_create_c_from_string(text, 0, array, len(flags), True, None)
    if not module:
        raise _Failure({"error": "compile"})
    return module


def _functions(lib: Any, module: Any) -> list[str]:
    return [lib.bpf_function_name(module, n).decode() for n in range(lib.bpf_num_functions(module))]


def _program(lib: Any, module: Any, name: str, kind: int, fds: list[int]) -> dict[str, Any]:
    fd, log, _ = _load(lib, module, (name, kind), LOG_STATS, LOG_SIZE)
    if fd < 0:
        _, log, code = _load(lib, module, (name, kind), LOG_LEVEL, WHOLE_LOG_SIZE)
        raise _Failure({"error": "load", "program": name, "errno": code, "log": log})
    fds.append(fd)
    return {"name": name, "log": log}


def _load(
    lib: Any, module: Any, what: tuple[str, int], level: int, size: int
) -> tuple[int, str, int]:
    raw, log = what[0].encode(), ctypes.create_string_buffer(size)
    fd = lib.bcc_func_load(
        module,
        what[1],
        raw,
        lib.bpf_function_start(module, raw),
        lib.bpf_function_size(module, raw),
        lib.bpf_module_license(module),
        lib.bpf_module_kern_version(module),
        level,
        ctypes.cast(log, ctypes.c_char_p),
        size,
        None,
        -1,
    )
    return fd, log.value.decode(errors="replace"), ctypes.get_errno()


def _maps(lib: Any, module: Any, fds: list[int]) -> list[dict[str, Any]]:
    lib.bpf_table_name.restype = ctypes.c_char_p  # BCC's own binding of it lacks its types
    lib.bpf_table_name.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    symbols = []
    for number in range(lib.bpf_num_tables(module)):
        name = lib.bpf_table_name(module, number)
        fields = range(lib.bpf_perf_event_fields(module, name))
        members = [lib.bpf_perf_event_field(module, name, n).decode() for n in fields]
        fds.append(lib.bpf_table_fd_id(module, number))
        types = {
            "key": (lib.bpf_table_key_desc(module, name) or b"").decode(),
            "value": (lib.bpf_table_leaf_desc(module, name) or b"").decode(),
        }
        symbols.append({"name": name.decode(), "members": members, **types})
    return symbols


if __name__ == "__main__":
    main()
