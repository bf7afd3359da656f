"""netkit: programs of the pair of interfaces that hand packets to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.sys.bpf_syscall import create_link
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.order import order
from pytest_bpf.objects.link.targets import interface, target_name

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Attach to the primary interface of a pair, for packets that it or its peer sends."""
    ifindex, run = interface(program, target)
    flags, place = order(program, options)
    kind = program.expected_attach_type
    fd = run(lambda: create_link(program.fd, ifindex, kind, flags=flags, options=place))
    return Link.owning(fd, program, target_name(target))
