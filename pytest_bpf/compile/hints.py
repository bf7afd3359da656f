"""What usually mends a complaint of the compiler, where that is known.

To add one: a row here, and a source with that mistake in ``tests/test_compile_hints.py``.
"""

from __future__ import annotations

import difflib
import errno
import re
import socket
from contextlib import suppress
from pathlib import Path

HEADERS = {
    "bpf/bpf_endian.h": r"bpf_(?:hton|ntoh|cpu_to_[bl]e|[bl]e\d+_to_cpu)\w*",
    "bpf/bpf_core_read.h": r"BPF_CORE_\w+|bpf_core_\w+",
    "bpf/bpf_tracing.h": r"BPF_(?:PROG|KPROBE|KRETPROBE|UPROBE|URETPROBE|KSYSCALL)\w*|PT_REGS_\w+",
    "bpf/usdt.bpf.h": r"BPF_USDT|bpf_usdt_\w+",
    "bpf/bpf_helpers.h": r"SEC|__uint|__type|__array|__always_inline|__ksym|__kconfig|bpf_\w+",
}
"""The header that declares a name; the first row that matches counts."""

EVERYWHERE = frozenset({"SEC", "__uint", "__type", "__array", "__always_inline"})
"""Names that every libbpf has declared, and that an error's line has for no reason of its own."""

MACROS = {
    "ETH_P_IP": "0x0800",
    "ETH_P_IPV6": "0x86DD",
    "ETH_P_ARP": "0x0806",
    "ETH_P_8021Q": "0x8100",
    "ETH_P_8021AD": "0x88A8",
    "ETH_ALEN": "6",
    "ETH_HLEN": "14",
    "TC_ACT_UNSPEC": "-1",
    "TC_ACT_OK": "0",
    "TC_ACT_SHOT": "2",
    "TC_ACT_PIPE": "3",
    "TC_ACT_STOLEN": "4",
    "TC_ACT_REDIRECT": "7",
    "TASK_COMM_LEN": "16",
    "PATH_MAX": "4096",
    "NAME_MAX": "255",
    "IFNAMSIZ": "16",
    "NULL": "((void *)0)",
}
"""Macros of the kernel's headers: BTF has no macros, so vmlinux.h has none."""

LIBC = {
    "printf": "bpf_printk(), whose text is in /sys/kernel/tracing/trace_pipe",
    "puts": "bpf_printk()",
    "snprintf": "BPF_SNPRINTF() of <bpf/bpf_helpers.h>",
    "memcpy": "__builtin_memcpy() with a constant size, or bpf_probe_read_kernel()",
    "memmove": "__builtin_memmove() with a constant size",
    "memset": "__builtin_memset() with a constant size",
    "memcmp": "__builtin_memcmp() with a constant size, or a loop with a constant limit",
    "strcmp": "bpf_strncmp()",
    "strncmp": "bpf_strncmp()",
    "strlen": "a loop with a constant limit",
    "strcpy": "bpf_probe_read_kernel_str()",
    "strncpy": "bpf_probe_read_kernel_str()",
    "time": "bpf_ktime_get_ns()",
    "rand": "bpf_get_prandom_u32()",
    "getpid": "bpf_get_current_pid_tgid() >> 32",
    **dict.fromkeys(("malloc", "calloc", "free"), "a map, which has the memory from the start"),
}
"""Functions of libc that newcomers call, and what stands for each in BPF."""

_NAME = re.compile(
    r"(?:use of undeclared identifier|undeclared function|declaration of function"
    r"|unknown type name|call to undeclared library function) '(?P<name>\w+)'"
    r"|(?P<sec>expected parameter declarator|type specifier missing)"
)
_TWICE = re.compile("(?:typedef )?redefinition")
_MISSING_FILE = re.compile(r"'(?P<path>[^']+)' file not found")
_BCC = re.compile(
    r"\bBPF_(?:HASH|TABLE|ARRAY|HISTOGRAM|PERF_OUTPUT|RINGBUF_OUTPUT|PERCPU_\w+|STACK_TRACE)\s*\("
)
_BUILT_IN = re.compile(r"built-in function '(?P<name>__\w+)' is not supported")
_SIGNED = re.compile("nsupport(?:ed)? signed division", re.IGNORECASE)
_FLOATING = re.compile(r"__\w*[sdt]f\w*")
_INCOMPLETE = re.compile(
    r"incomplete (?:definition of )?type '(?P<kind>struct|union) (?P<name>\w+)'"
)
_NO_MEMBER = re.compile(
    r"no member named '(?P<member>\w+)' in '(?P<kind>struct|union) (?P<name>\w+)'"
)
_NO_POINTER = re.compile(
    r"(?:integer to pointer conversion|to parameter of incompatible type).*'(?:const )?void \*'"
)
_SAME_SYMBOL = re.compile(
    r"^(?P<name>\w+) changed binding to STB_GLOBAL|symbol '(?P<other>\w+)' is already defined"
)
_STACK = re.compile("stack (?:limit|size|arguments)|exceeds? .*stack", re.IGNORECASE)


def hint(error: str, output: str, content: str = "", line: int = 0, folder: str = "") -> str:
    """Return what usually mends an error, to end its sentence with; "" where that is not known.

    ``output`` is everything the compiler printed, ``content`` the source, ``line`` that of the
    error, 0 where it lies in another file, ``folder`` where the source is.

    >>> hint("use of undeclared identifier 'ETH_P_IP'", "")
    '; BTF has no macros, so vmlinux.h has none: write #define ETH_P_IP 0x0800'
    """
    if _TWICE.match(error) and "vmlinux.h:" in output:
        if included := re.search(r"(?m)^\s*#\s*include\s*<((?:linux|asm|net)/[^>]+)>", content):
            return (
                f"; vmlinux.h has the kernel's types already: leave out #include <{included[1]}>, "
                "or vmlinux.h"
            )
        return "; vmlinux.h has that name already, choose another"
    if match := _MISSING_FILE.search(error):
        return _near_file(match["path"], content, folder)
    for pattern, explain in _BY_PATTERN:
        if match := pattern.search(error):
            return explain(match, content)
    if _STACK.search(error):
        return "; a program has 512 bytes of stack: move large variables into a per-CPU array"
    match = _NAME.search(error)
    name = (match["name"] or "SEC") if match else ""
    return (_for_name(name, content) if name else "") or _in_line(content, line)


def _near_file(name: str, content: str, folder: str) -> str:
    if _BCC.search(content):
        return "; this is BCC's dialect of C: load it by bpf.load_bcc()"
    path = Path(name)
    for parent in (Path(folder, path.parent), Path("/usr/include", path.parent)):
        names = []
        with suppress(OSError):
            names = [entry.name for entry in parent.iterdir()]
        if near := difflib.get_close_matches(path.name, names, n=1, cutoff=0.8):
            return f"; did you mean {path.with_name(near[0])}?"
    return ""


def _without_library(match: re.Match[str], _: str) -> str:
    name = match["name"]
    if _FLOATING.fullmatch(name):
        return "; BPF has no floating point: compute in integers, scaled up"
    return _for_name(name, "") if name in LIBC else "; BPF has no such instruction"


def _other_member(match: re.Match[str], content: str) -> str:
    if '"vmlinux.h"' not in content and "<vmlinux.h>" not in content:
        return ""
    return (
        f"; vmlinux.h has {match['kind']} {match['name']} as one kernel has it: the member may "
        "have another name or place there"
    )


def _no_address(_: re.Match[str], __: str) -> str:
    return "; helpers take addresses: pass a map as &map, a key or a value as &variable"


def _signed_division(_: re.Match[str], __: str) -> str:
    return "; divide unsigned numbers, or compile with -mcpu=v4 for kernels from 6.6 on"


def _like_its_section(match: re.Match[str], content: str) -> str:
    name = match["name"] or match["other"]
    if f'SEC("{name}")' not in content:
        return ""
    return f'; the section has that name: call the function otherwise than SEC("{name}")'


def _near_struct(match: re.Match[str], content: str) -> str:
    kind, name = match["kind"], match["name"]
    others = set(re.findall(rf"\b{kind}\s+(\w+)", content)) - {name}
    near = difflib.get_close_matches(name, sorted(others), n=1, cutoff=0.7)
    hint = f"; did you mean {kind} {near[0]}?" if near else ""
    return f"; nothing that is included says what {kind} {name} is{hint}"


_BY_PATTERN = (
    (_INCOMPLETE, _near_struct),
    (_SIGNED, _signed_division),
    (_BUILT_IN, _without_library),
    (_NO_MEMBER, _other_member),
    (_NO_POINTER, _no_address),
    (_SAME_SYMBOL, _like_its_section),
)


def _in_line(content: str, line: int) -> str:
    """Return what mends the first name in the line of the error that has a header to come from."""
    lines = content.splitlines()
    for word in re.findall(r"\w+", lines[line - 1]) if 0 < line <= len(lines) else ():
        if word.isupper() and word not in EVERYWHERE and (mended := _header(word, content)):
            return mended  # a macro that was not expanded
    return ""


def _header(name: str, content: str) -> str:
    """Return which header declares a name, and what to do where that is included already."""
    header = next((h for h, pattern in HEADERS.items() if re.fullmatch(pattern, name)), None)
    if header is None:
        return ""
    if Path(header).name not in content:
        return f"; {name} is declared by <{header}>: is that included?"
    if name in EVERYWHERE or _declares(Path("/usr/include", header), name):
        return ""
    return (
        f"; the <{header}> that is included is older than {name}: have the headers of a newer "
        "libbpf first, by include_dirs= or bpf_include_dirs"
    )


def _declares(header: Path, name: str) -> bool:
    """Say whether a header, or for helpers the one that it includes, has a name."""
    files = [header, header.with_name("bpf_helper_defs.h")]
    try:
        return any(name in file.read_text(errors="replace") for file in files)
    except OSError:
        return True


def _for_name(name: str, content: str) -> str:
    if name in LIBC:
        return f"; BPF has no C library: use {LIBC[name]}"
    value = MACROS.get(name) or _constant(name)
    if value:
        return f"; BTF has no macros, so vmlinux.h has none: write #define {name} {value}"
    if re.fullmatch(r"(?:__)?[us](?:8|16|32|64)|__(?:be|le)(?:16|32|64)", name):
        return '; write #include "vmlinux.h" or <linux/types.h> first'
    return _header(name, content)


def _constant(name: str) -> str:
    """Return the value of an error code, or of a family or kind of socket."""
    if name in errno.errorcode.values():
        return str(getattr(errno, name))
    if re.fullmatch(r"(?:AF|SOCK|SOL|SO)_[A-Z0-9_]+", name):
        value = getattr(socket, name, None)
        return "" if value is None else str(int(value))
    return ""
