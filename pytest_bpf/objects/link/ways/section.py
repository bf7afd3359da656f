"""What libbpf attaches by the section alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel.sys.tracefs import with_tracefs
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.refusals import no_target

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable


def attach(program: Attachable, target: Any, _: Options) -> Link:
    """Attach where the section says."""
    no_target(program, target)
    if not program.pointer:
        raise AttachError(
            f"program {program.name!r} ({program.section}) was not loaded from an object of this "
            "process: only who loaded it can attach it"
        )
    return with_tracefs(Link.by_libbpf, program, program.section, "bpf_program__attach")
