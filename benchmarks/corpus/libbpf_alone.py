"""What libbpf alone loads: run as a process of its own, without pytest-bpf.

Arguments: libbpf's file, then objects. Prints one line of JSON for each: the error codes of the
whole object and of each program alone (0: loaded; "crash" where libbpf died). Pins are left out.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from ctypes import c_bool, c_char_p, c_int, c_size_t, c_void_p
from pathlib import Path
from typing import Any

FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "bpf_object__open_mem": (c_void_p, c_char_p, c_size_t, c_void_p),
    "bpf_object__load": (c_int, c_void_p),
    "bpf_object__close": (None, c_void_p),
    "bpf_object__next_program": (c_void_p, c_void_p, c_void_p),
    "bpf_object__next_map": (c_void_p, c_void_p, c_void_p),
    "bpf_program__name": (c_char_p, c_void_p),
    "bpf_program__set_autoload": (c_int, c_void_p, c_bool),
    "bpf_map__set_pin_path": (c_int, c_void_p, c_char_p),
    "libbpf_get_error": (ctypes.c_long, c_void_p),
    "libbpf_set_print": (c_void_p, c_void_p),
}


def main() -> None:
    libbpf = ctypes.CDLL(sys.argv[1], use_errno=True)
    for name, (result, *arguments) in FUNCTIONS.items():
        function = getattr(libbpf, name)
        function.restype, function.argtypes = result, arguments
    libbpf.libbpf_set_print(None)
    for path in sys.argv[2:]:
        print(json.dumps(in_a_child(libbpf, Path(path).read_bytes())), flush=True)


def in_a_child(libbpf: Any, content: bytes) -> dict[str, Any]:
    """Return the answers of a child process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        answers: dict[str, Any] = {"whole": load(libbpf, content, None), "programs": {}}
        for name in program_names(libbpf, content):
            answers["programs"][name] = load(libbpf, content, name)
        os.write(writer, json.dumps(answers).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        raw = pipe.read()
    os.waitpid(child, 0)
    answer: dict[str, Any] = json.loads(raw) if raw else {"whole": "crash", "programs": {}}
    return answer


def program_names(libbpf: Any, content: bytes) -> list[str]:
    pointer = libbpf.bpf_object__open_mem(content, len(content), None)
    if libbpf.libbpf_get_error(pointer):
        return []
    names, current = [], libbpf.bpf_object__next_program(pointer, None)
    while current:
        names.append(libbpf.bpf_program__name(current).decode())
        current = libbpf.bpf_object__next_program(pointer, current)
    libbpf.bpf_object__close(pointer)
    return names


def load(libbpf: Any, content: bytes, only: str | None) -> int:
    """Load all that is loaded by itself, or one program; return 0 or the error code."""
    pointer = libbpf.bpf_object__open_mem(content, len(content), None)
    if code := libbpf.libbpf_get_error(pointer):
        return -int(code)
    current = libbpf.bpf_object__next_program(pointer, None)
    while current and only is not None:
        name = libbpf.bpf_program__name(current).decode()
        libbpf.bpf_program__set_autoload(current, name == only)
        current = libbpf.bpf_object__next_program(pointer, current)
    current = libbpf.bpf_object__next_map(pointer, None)
    while current:
        libbpf.bpf_map__set_pin_path(current, None)
        current = libbpf.bpf_object__next_map(pointer, current)
    code = -int(libbpf.bpf_object__load(pointer))
    libbpf.bpf_object__close(pointer)
    return code


if __name__ == "__main__":
    main()
