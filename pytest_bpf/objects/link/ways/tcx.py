"""tcx: programs at the ingress or egress of an interface, in an order of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel.sys.bpf_syscall import create_link
from pytest_bpf.kinds.attach_types import AttachType
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.options import direction
from pytest_bpf.objects.link.order import order
from pytest_bpf.objects.link.targets import interface, target_name

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable

ATTACH_TYPES = {"ingress": AttachType.TCX_INGRESS, "egress": AttachType.TCX_EGRESS}


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Attach a link at the end of the programs there, or where the options say."""
    if options.priority is not None or options.handle:
        raise AttachError(
            f"program {program.name!r} ({program.section}): tcx orders programs by before=, "
            "after=, first= and last=; priority= and handle= go with mode='clsact'"
        )
    way = direction(program, options)
    ifindex, run = interface(program, target)
    flags, place = order(program, options)
    kind = ATTACH_TYPES[way]
    fd = run(lambda: create_link(program.fd, ifindex, kind, flags=flags, options=place))
    return Link.owning(fd, program, f"{target_name(target)} tcx {way}")
