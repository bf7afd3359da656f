"""Programs of a network namespace: socket look-up, flow dissection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.sys.bpf_syscall import create_link
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.targets import NETWORK, descriptor, target_name

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable


def attach(program: Attachable, target: Any, _: Options) -> Link:
    """Attach to a network namespace."""
    with descriptor(program, target, NETWORK) as fd:
        made = create_link(program.fd, fd, program.expected_attach_type)
    return Link.owning(made, program, target_name(target))
