"""Whose fault a refusal is: the program's, or that of a kernel which lacks its kind altogether."""

from __future__ import annotations

from pytest_bpf.kernel import features


def lacking(section: str, program_type: str) -> str | None:
    """Return what the kernel lacks for such a program; None when others of its kind would do.

    It is asked after a refusal only: the kernel is probed for it.
    """
    kind = section.partition("/")[0].rstrip("?+").removesuffix(".s").replace(".multi", "_multi")
    kind = kind.replace("kretprobe_multi", "kprobe_multi")
    if kind in features.ATTACH_KINDS:
        found, what = features.attach(kind), f"{kind} programs"
    elif program_type in {"ext", "netfilter", "struct_ops"}:
        found, what = features.program_type(program_type), f"{program_type} programs"
    else:
        return None
    return None if found else found.reason or f"this kernel has no {what}"
