"""Programs on the kernel and on binaries, and all others."""

from __future__ import annotations

from dataclasses import replace

from pytest_bpf.kinds.attach_types import AttachType as At
from pytest_bpf.kinds.program_kind import COOKIE, ProgramKind

_PROBE = ("offset", *COOKIE)
_UPROBE = ("binary", "function", "offset", "pid", *COOKIE)

_KPROBE = ProgramKind("", "kprobe", way="kprobe", options=_PROBE, context="pt_regs")
_TRACING = ProgramKind(
    "", "tracing", way="tracing", options=COOKIE, since=(5, 5), caller="trampoline"
)

ROWS = (
    ProgramKind(
        "tracepoint",
        "tracepoint",
        {"tracepoint": 0, "tp": 0},
        way="tracepoint",
        options=COOKIE,
        since=(4, 7),
    ),
    ProgramKind(
        "raw_tp",
        "raw_tracepoint",
        {"raw_tracepoint": 0, "raw_tp": 0},
        way="raw_tracepoint",
        options=COOKIE,
        context="bpf_raw_tracepoint_args",
        test_run="arguments",
        caller="raw_tracepoint",
        since=(4, 17),
    ),
    ProgramKind(
        "raw_tp_writable",
        "raw_tracepoint_writable",
        {"raw_tracepoint.w": 0, "raw_tp.w": 0},
        way="raw_tracepoint",
        options=COOKIE,
        context="bpf_raw_tracepoint_args",
        test_run="arguments",
        caller="raw_tracepoint",
        since=(5, 2),
        probe="raw_tp",
    ),
    replace(_KPROBE, name="kprobe", sections={"kprobe": 0}, since=(4, 1), with_binary="uprobe"),
    replace(
        _KPROBE,
        name="kretprobe",
        sections={"kretprobe": 0},
        options=COOKIE,
        with_binary="uretprobe",
        since=(4, 1),
    ),
    replace(
        _KPROBE,
        name="ksyscall",
        sections={"ksyscall": 0, "kretsyscall": 0},
        way="section",
        options=(),
        since=(4, 1),
        probe="kprobe",
    ),
    replace(
        _KPROBE,
        name="kprobe_multi",
        sections=dict.fromkeys(("kprobe.multi", "kretprobe.multi"), At.TRACE_KPROBE_MULTI),
        way="kprobe_multi",
        options=COOKIE,
        since=(5, 18),
    ),
    replace(
        _KPROBE,
        name="kprobe_session",
        sections={"kprobe.session": At.TRACE_KPROBE_SESSION},
        way="kprobe_multi",
        options=COOKIE,
        since=(6, 10),
        probe="kprobe_multi",
    ),
    replace(_KPROBE, name="uprobe", sections={"uprobe": 0}, way="uprobe", options=_UPROBE),
    replace(_KPROBE, name="uretprobe", sections={"uretprobe": 0}, way="uprobe", options=_UPROBE),
    replace(
        _KPROBE,
        name="uprobe_multi",
        sections=dict.fromkeys(("uprobe.multi", "uretprobe.multi"), At.TRACE_UPROBE_MULTI),
        way="uprobe_multi",
        options=_UPROBE,
        since=(6, 6),
    ),
    replace(
        _KPROBE,
        name="uprobe_session",
        sections={"uprobe.session": At.TRACE_UPROBE_SESSION},
        way="uprobe_multi",
        options=_UPROBE,
        since=(6, 13),
        probe="uprobe_multi",
    ),
    replace(
        _KPROBE,
        name="usdt",
        sections={"usdt": 0},
        way="usdt",
        options=("binary", "function", "provider", "pid", *COOKIE),
    ),
    ProgramKind(
        "perf_event",
        "perf_event",
        {"perf_event": 0},
        target="a perf event, or pid=, cpu=, frequency=",
        way="perf_event",
        options=("pid", "cpu", "frequency", *COOKIE),
        context="bpf_perf_event_data",
        since=(4, 9),
    ),
    replace(_TRACING, name="tp_btf", sections={"tp_btf": At.TRACE_RAW_TP}, caller="raw_tracepoint"),
    replace(_TRACING, name="fentry", sections={"fentry": At.TRACE_FENTRY}, test_run="function"),
    replace(_TRACING, name="fexit", sections={"fexit": At.TRACE_FEXIT}, test_run="function"),
    replace(
        _TRACING,
        name="fmod_ret",
        sections={"fmod_ret": At.MODIFY_RETURN},
        test_run="function",
        since=(5, 7),
    ),
    replace(
        _TRACING,
        name="iter",
        sections={"iter": At.TRACE_ITER},
        way="iterator",
        options=("pid", "tid", "order", "netns"),
        caller="",
        since=(5, 8),
    ),
    replace(_TRACING, name="lsm", type="lsm", sections={"lsm": At.LSM_MAC}, since=(5, 7)),
    ProgramKind(
        "freplace",
        "ext",
        {"freplace": 0},
        way="section",
        since=(5, 6),
        unseen=True,
    ),
    # all others
    ProgramKind(
        "struct_ops",
        "struct_ops",
        {"struct_ops": 0},
        target="a struct_ops map",
        since=(5, 6),
        unseen=True,
    ),
    ProgramKind(
        "syscall",
        "syscall",
        {"syscall": 0},
        target="no hook, test_run() runs it",
        test_run="context",
        since=(5, 14),
        unseen=True,
    ),
    ProgramKind(
        "lirc_mode2",
        "lirc_mode2",
        {"lirc_mode2": At.LIRC_MODE2},
        target="an infrared device",
        since=(4, 18),
        unseen=True,
    ),
)
