"""USDT: probes that a binary declares by itself."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError, near_matches
from pytest_bpf.kernel.sys.libbpf_options import UsdtOptions
from pytest_bpf.objects.elf_symbols import DamagedElfError, usdt_probes
from pytest_bpf.objects.link.binaries import find_binary, parse_place
from pytest_bpf.objects.link.link import Link

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Attach to the probe ``function`` of ``provider`` in a binary."""
    binary, provider, name = parse_place(program, target, 3)
    binary, provider = str(options.binary or binary), options.provider or provider
    name = options.function or name
    if not (binary and provider and name):
        raise AttachError(
            f"program {program.name!r} ({program.section}): pass binary=, provider= and function= "
            "(the probe's name)"
        )
    if not program.pointer:
        raise AttachError(
            f"program {program.name!r} ({program.section}) was not loaded from an object of this "
            "process: libbpf attaches USDT programs of its own alone"
        )
    path = os.fsencode(find_binary(program, binary))
    cookie = ctypes.byref(UsdtOptions(usdt_cookie=options.cookie))
    arguments = (options.pid, path, provider.encode(), name.encode(), cookie)
    text = f"{binary}:{provider}:{name}"
    try:
        link = Link.by_libbpf(program, text, "bpf_program__attach_usdt", *arguments)
    except FileNotFoundError:
        probes = _probes(Path(os.fsdecode(path)))
        near = near_matches(f"{provider}:{name}", probes) if probes else "; it has no USDT probes"
        raise AttachError(
            f"program {program.name!r} ({program.section}): {binary} has no probe "
            f"'{provider}:{name}'{near}",
            errno.ENOENT,
        ) from None
    except ProcessLookupError:
        if options.pid >= 0 and not Path(f"/proc/{options.pid}").exists():
            raise
        raise AttachError(
            f"program {program.name!r} ({program.section}): its object has no maps for USDT: "
            "include <bpf/usdt.bpf.h>, and write the program with BPF_USDT()",
            errno.ESRCH,
        ) from None
    link.fd = -1  # libbpf has several links for it, and leaves 0 here
    return link


def _probes(path: Path) -> list[str]:
    try:
        return usdt_probes(path)
    except (OSError, DamagedElfError):
        return []
