"""Programs of a cgroup: by a link, or by the older call with its flags."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel.sys.bpf_syscall import attach_program, create_link, detach_program
from pytest_bpf.kinds.programs import parse_section
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.order import PREORDER, REPLACE, order, relative
from pytest_bpf.objects.link.query import occupant
from pytest_bpf.objects.link.targets import CGROUP, descriptor, program_fd, target_name

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable

MODES = {"exclusive": 0, "override": 1 << 0, "multi": 1 << 1}
"""``BPF_F_ALLOW_OVERRIDE`` and ``BPF_F_ALLOW_MULTI`` of ``uapi/linux/bpf.h``."""

DIRECTIONS = {"ingress": 0, "egress": 1}
"""``BPF_CGROUP_INET_INGRESS`` and ``BPF_CGROUP_INET_EGRESS``."""


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Attach by a link, which allows several programs, or without one where ``mode`` is given."""
    if options.mode not in {None, *MODES}:
        modes = ", ".join(map(repr, MODES))
        raise AttachError(
            f"program {program.name!r}: cgroup mode {options.mode!r} is none of {modes}"
        )
    if options.replace is not None and options.mode is None:
        raise AttachError(
            f"program {program.name!r}: replace= goes with mode='multi'; a link is replaced by "
            "link.update(program)"
        )
    kind = _attach_type(program, options)
    with descriptor(program, target, CGROUP) as fd:
        if options.mode is not None:
            return _without_link(program, fd, target_name(target), kind, options)
        flags, place = order(program, options)
        flags |= PREORDER if options.preorder else 0
        made = create_link(program.fd, fd, kind, flags=flags, options=place)
    return Link.owning(made, program, target_name(target))


def _attach_type(program: Attachable, options: Options) -> int:
    if options.direction is not None:
        if options.direction not in DIRECTIONS:
            raise AttachError(
                f"program {program.name!r}: direction {options.direction!r} is none of 'ingress', "
                "'egress'"
            )
        return DIRECTIONS[options.direction]
    parsed = parse_section(program.section)
    if program.type == "cgroup_skb" and (parsed is None or parsed.prefix == "cgroup/skb"):
        raise AttachError(
            f"program {program.name!r} ({program.section}): its section does not say where; pass "
            "direction='ingress' or direction='egress'"
        )
    return program.expected_attach_type


def _without_link(program: Attachable, fd: int, name: str, kind: int, options: Options) -> Link:
    flags, anchor, revision = relative(program, options)
    flags |= MODES[options.mode or ""] | (PREORDER if options.preorder else 0)
    if options.mode != "multi" and (there := occupant(fd, kind)):
        raise AttachError(
            f"program {program.name!r} cannot be attached to {name} with mode={options.mode!r}: "
            f"a cgroup has one such program of each kind, and {there} is attached there; "
            "detach() its link first",
            errno.EEXIST,
        )
    old = 0
    if options.replace is not None:
        flags, old = flags | REPLACE, program_fd(program, options.replace, "replace")
    attach_program(
        *(fd, program.fd, kind),
        flags=flags,
        replace_fd=old,
        relative_fd=anchor,
        revision=revision,
    )
    cgroup_fd, prog_fd = os.dup(fd), os.dup(program.fd)

    def undo() -> None:
        with suppress(FileNotFoundError):  # it was replaced, or went with the cgroup
            try:
                detach_program(cgroup_fd, prog_fd, kind)
            finally:
                os.close(cgroup_fd)
                os.close(prog_fd)

    return Link(program.name, f"{name} ({options.mode})", undo)
