"""fentry, fexit, fmod_ret, tp_btf, LSM hooks and freplace: the program knows its target."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.bpf_syscall import create_link
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.refusals import no_target

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Attach where the program was loaded for."""
    no_target(program, target)
    if options.cookie:
        cookie = struct.pack("=QQ", 0, options.cookie)  # after the target, which is the program's
        fd = create_link(program.fd, 0, program.expected_attach_type, options=cookie)
    else:
        fd = libbpf.call("bpf_raw_tracepoint_open", None, program.fd)
    return Link.owning(fd, program, program.section)
