"""Where among the programs that hang on one hook a new one goes: tcx, netkit, cgroups."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.targets import ProgramTarget, target_name

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable

REPLACE, BEFORE, AFTER, PREORDER, BY_LINK = 1 << 2, 1 << 3, 1 << 4, 1 << 6, 1 << 13
"""``BPF_F_REPLACE``, ``_BEFORE``, ``_AFTER``, ``_PREORDER``, ``_LINK`` of ``uapi/linux/bpf.h``."""


def relative(program: Attachable, options: Options) -> tuple[int, int, int]:
    """Return the flags, the descriptor of the anchor and the expected revision."""
    places = [name for name in ("before", "after") if getattr(options, name) is not None]
    places += [name for name in ("first", "last") if getattr(options, name)]
    if len(places) > 1:
        names = ", ".join(f"{name}=" for name in places)
        raise AttachError(f"program {program.name!r}: one place at a time, not {names}")
    if not places:
        return 0, 0, options.revision
    flags = BEFORE if places[0] in {"before", "first"} else AFTER
    anchor = options.before if options.before is not None else options.after
    if anchor is None:
        return flags, 0, options.revision
    return (
        flags | (BY_LINK if isinstance(anchor, Link) else 0),
        _fd(program, anchor),
        options.revision,
    )


def order(program: Attachable, options: Options) -> tuple[int, bytes]:
    """Return the same as the flags and the last bytes of ``BPF_LINK_CREATE``'s attributes."""
    flags, anchor, revision = relative(program, options)
    return flags, struct.pack("=IIQ", anchor, 0, revision) if anchor or revision else b""


def _fd(program: Attachable, anchor: Any) -> int:
    if not isinstance(anchor, (Link, ProgramTarget)):
        raise AttachError(
            f"program {program.name!r}: before= and after= take a program or a link, "
            f"not {target_name(anchor)}"
        )
    if anchor.fd < 0:
        why = (
            "is detached"
            if isinstance(anchor, Link) and not anchor.attached
            else "has no bpf_link to go by"
        )
        raise AttachError(f"program {program.name!r}: {anchor!r} {why}")
    return anchor.fd
