"""netfilter: programs at the hooks of a network namespace, beside those of nftables."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError, near_matches
from pytest_bpf.kernel.sys.bpf_syscall import create_link
from pytest_bpf.kernel.sys.network import in_namespace
from pytest_bpf.kinds.attach_types import AttachType
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.targets import NETWORK, descriptor, target_name

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable

HOOKS = {"pre_routing": 0, "local_in": 1, "forward": 2, "local_out": 3, "post_routing": 4}
"""``enum nf_inet_hooks`` of ``uapi/linux/netfilter.h``."""

FAMILIES = {"ipv4": 2, "ipv6": 10}
"""``NFPROTO_IPV4`` and ``NFPROTO_IPV6``."""

DEFRAG = 1 << 0
"""``BPF_F_NETFILTER_IP_DEFRAG``."""


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Attach at a hook of a network namespace; lower priorities run first."""
    if options.hook not in HOOKS:
        near = near_matches(options.hook, HOOKS) if options.hook else ""
        raise AttachError(
            f"program {program.name!r} (netfilter) takes hook= one of "
            f"{', '.join(HOOKS)}, not {options.hook!r}{near}"
        )
    if options.family not in FAMILIES:
        raise AttachError(
            f"program {program.name!r} (netfilter) takes family= 'ipv4' or 'ipv6', "
            f"not {options.family!r}"
        )
    members = (FAMILIES[options.family], HOOKS[options.hook], options.priority or 0)
    place = struct.pack("=IIiI", *members, DEFRAG if options.defrag else 0)
    with descriptor(program, target, NETWORK) as fd:
        made = in_namespace(
            fd, lambda: create_link(program.fd, 0, AttachType.NETFILTER, options=place)
        )
    where = (
        f"{target_name(target)} {options.family} {options.hook}, priority {options.priority or 0}"
    )
    return Link.owning(made, program, where)
