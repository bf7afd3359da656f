"""What each program type needs to be loaded at all, with targets that disturb nobody.

The functions named here exist for tests (``bpf_fentry_test1`` in ``net/bpf/test_run.c``) or run
rarely. ``fmod_ret`` takes ``security_*`` everywhere, and other functions only with
CONFIG_FUNCTION_ERROR_INJECTION.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel import btf
from pytest_bpf.kernel.programs.load import BPF_F_SLEEPABLE, Variant, btf_id
from pytest_bpf.kinds.attach_types import AttachType

if TYPE_CHECKING:
    from collections.abc import Callable

TRACEPOINT = "sched_process_exec"


def tracing(kind: str) -> Variant:
    """Return how a program of the attach kind ``kind`` that needs a BTF target is loaded.

    Raises `UnavailableError` when the kernel has no BTF, or no such target.
    """
    attach_type, target, target_kind = _TARGETS[kind]
    number = btf_id(target, target_kind)
    if not number:
        raise UnavailableError(f"this kernel's BTF has no {target}, which the probe attaches to")
    return Variant(attach_type, number)


_TARGETS = {
    "tp_btf": (AttachType.TRACE_RAW_TP, f"btf_trace_{TRACEPOINT}", btf.Kind.TYPEDEF),
    "fentry": (AttachType.TRACE_FENTRY, "bpf_fentry_test1", btf.Kind.FUNC),
    "fexit": (AttachType.TRACE_FEXIT, "bpf_fentry_test1", btf.Kind.FUNC),
    "fmod_ret": (AttachType.MODIFY_RETURN, "security_syslog", btf.Kind.FUNC),
    "lsm": (AttachType.LSM_MAC, "bpf_lsm_syslog", btf.Kind.FUNC),
    "iter": (AttachType.TRACE_ITER, "bpf_iter_task", btf.Kind.FUNC),
}


def struct_ops() -> Variant:
    """Return how a program for ``tcp_congestion_ops::ssthresh`` is loaded."""
    type_id = btf_id("tcp_congestion_ops", btf.Kind.STRUCT)
    operations = btf.vmlinux().type(type_id)
    if not isinstance(operations, btf.Struct):
        raise UnavailableError("this kernel's BTF has no struct tcp_congestion_ops")
    return Variant([member.name for member in operations.members].index("ssthresh"), type_id)


@cache
def variants(program_type: str) -> tuple[Variant, ...]:
    """Return how programs of this type are loaded, as far as this kernel's BTF lets it be known.

    Most types have one way; those of ``tracing`` differ in the helpers they may call.
    """
    ways = []
    for way in _BY_BTF.get(program_type, ()):
        with suppress(UnavailableError):
            ways.append(way())
    return tuple(ways) or (_PLAIN.get(program_type, Variant()),)


_BY_BTF: dict[str, tuple[Callable[[], Variant], ...]] = {
    "lsm": (partial(tracing, "lsm"),),
    "struct_ops": (struct_ops,),
    "tracing": tuple(partial(tracing, kind) for kind in ("tp_btf", "iter", "fentry")),
}
_PLAIN = {
    "cgroup_sock_addr": Variant(AttachType.CGROUP_INET4_CONNECT),
    "cgroup_sockopt": Variant(AttachType.CGROUP_GETSOCKOPT),
    "netfilter": Variant(AttachType.NETFILTER),
    "sk_lookup": Variant(AttachType.SK_LOOKUP),
    "syscall": Variant(flags=BPF_F_SLEEPABLE),
}
