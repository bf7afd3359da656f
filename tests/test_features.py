from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_bpf.errors import UnknownNameError
from pytest_bpf.kernel import features
from pytest_bpf.kernel.btf import enums
from pytest_bpf.kernel.features.helpers import helper_ids, verifier_helper_ids
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.network import in_private_network
from tests.nobody import AS_NOBODY

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="probing needs root")

BPF_SYSCALL = {"x86_64": 321, "s390x": 351, "ppc64le": 361}.get(os.uname().machine, 280)
EVERYWHERE = "tracepoint raw_tp tp_btf uprobe uretprobe usdt iter perf_event xdp tc cgroup sockops"


def answers(script: str, *wrapper: str) -> list[Any]:
    """Run ``script``, which appends to ``said``, in a process of its own."""
    program = f"import json\nfrom pytest_bpf.kernel import features\nsaid = []\n{script}\n"
    result = subprocess.run(
        [*wrapper, sys.executable, "-c", program + "print(json.dumps(said))"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert result.returncode == 0, result.stderr
    found: list[Any] = json.loads(result.stdout)
    return found


def without(folder: str) -> tuple[str, ...]:
    """Return the start of a command that sees ``folder`` empty, in its own mount namespace."""
    return "unshare", "-m", "sh", "-c", f'mount -t tmpfs none {folder} && exec "$@"', "sh"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (enums.PROGRAM_TYPES, "libbpf_bpf_prog_type_str"),
        (enums.MAP_TYPES, "libbpf_bpf_map_type_str"),
    ],
)
def test_names_are_libbpfs(names: tuple[str, ...], text: str) -> None:
    theirs = [libbpf.function(text)(number) for number in range(len(names))]
    known = [name.decode() for name in theirs if name]
    assert len(known) >= 32
    assert list(names[: len(known)]) == known


@pytest.mark.parametrize(
    ("number_of", "enum", "prefix"),
    [
        (enums.program_type_id, "enum bpf_prog_type", "BPF_PROG_TYPE_"),
        (enums.map_type_id, "enum bpf_map_type", "BPF_MAP_TYPE_"),
    ],
)
def test_numbers_are_the_kernels(number_of: object, enum: str, prefix: str) -> None:
    kernel = enums.kernel_enum(enum, prefix)
    assert len(kernel) >= 30
    assert callable(number_of)
    named = {name: number for name, number in kernel.items() if "deprecated" not in name}
    assert {name: number_of(name) for name in named} == named


def test_version_is_unames() -> None:
    assert features.release() == os.uname().release
    major, minor, _ = features.kernel_version()
    assert os.uname().release.startswith(f"{major}.{minor}")


def test_config_is_the_kernels() -> None:
    path = next((path for path in features.config_paths() if path.exists()), None)
    if path is None:
        pytest.skip("this kernel's configuration cannot be read")
    content = path.read_bytes()
    lines = (gzip.decompress(content) if path.suffix == ".gz" else content).decode().splitlines()
    assert "CONFIG_BPF_SYSCALL=y" in lines
    assert features.config("CONFIG_BPF_SYSCALL") == "y"
    unset = next(line.split()[1] for line in lines if line.endswith(" is not set"))
    assert features.config(unset) == "n"
    text = next(line for line in lines if line.startswith("CONFIG_") and line.endswith('"'))
    name, _, value = text.partition("=")
    assert features.config(name) == value.strip('"')


def test_unknown_config_differs_from_unset() -> None:
    if any(path.exists() for path in features.config_paths()[1:]):
        pytest.skip("the configuration lies on the disk as well as in /proc")
    assert answers("said.append(features.config('CONFIG_BPF'))", *without("/proc")) == [None]


def test_nothing_is_missing_for_root() -> None:
    assert features.privilege() is None


def test_btf_is_there() -> None:
    path = features.btf_path()
    assert path is not None
    assert path.stat().st_size > 0
    assert features.has_btf()


@pytest.mark.parametrize(
    "name",
    [
        "socket_filter",
        "xdp",
        "sched_cls",
        "tracepoint",
        "raw_tracepoint",
        "tracing",
        "cgroup_sock_addr",
    ],
)
def test_program_types_that_every_kernel_has(name: str) -> None:
    assert features.program_type(name) == features.Probe(available=True)


@pytest.mark.parametrize("name", enums.PROGRAM_TYPES[1:])
def test_program_types_agree_with_libbpf(name: str) -> None:
    theirs = libbpf.function("libbpf_probe_bpf_prog_type")(enums.program_type_id(name), None)
    if theirs == 1:
        assert features.program_type(name)
    elif name not in {"tracing", "ext", "lsm", "netfilter", "struct_ops"}:  # libbpf 1.1 is wrong
        assert not features.program_type(name)


def test_refused_program_type_says_so() -> None:
    for name in ("ext", "lsm"):
        probe = features.program_type(name)
        assert probe or "refuses" in probe.reason


@pytest.mark.parametrize("name", ["hash", "percpu_array", "ringbuf", "lpm_trie", "task_storage"])
def test_map_types_that_every_kernel_has(name: str) -> None:
    assert features.map_type(name)


def test_arena_is_probed_without_libbpf() -> None:
    assert bool(features.map_type("arena")) == (features.kernel_version() >= (6, 9, 0))


def test_helpers_by_program_type() -> None:
    assert features.helper("bpf_ringbuf_output")
    assert features.helper("bpf_ringbuf_output", "xdp")
    assert features.helper("bpf_get_prandom_u32", "xdp")
    assert features.helper("bpf_redirect_map", "xdp")
    assert features.helper("bpf_seq_write", "tracing")
    refused = features.helper("bpf_redirect_map", "tracepoint")
    assert refused == features.Probe(available=False, reason="tracepoint programs may not call it")


def test_first_helper_is_not_mistaken_for_a_later_one() -> None:
    assert helper_ids()["bpf_map_lookup_elem"] == 1
    assert features.helper("bpf_map_lookup_elem", "socket_filter")
    assert not features.helper("bpf_xdp_adjust_head", "socket_filter")


def test_helper_numbers_agree_between_btf_and_verifier() -> None:
    named_by_btf = helper_ids()
    assert named_by_btf["bpf_ringbuf_output"] == 130
    assert verifier_helper_ids() == named_by_btf


def test_without_btf_helpers_are_named_by_the_verifier() -> None:
    said = answers(
        "said.append(features.has_btf().reason)\n"
        "said.append(features.helper_ids()['bpf_ringbuf_output'])\n"
        "said.append(features.attach('tp_btf').reason)\n"
        "said.append(features.attach('raw_tp').available)\n"
        "said.append(features.kfunc('bpf_cpumask_create').reason)",
        *without("/sys"),
    )
    assert said[0] == "there is no /sys/kernel/btf/vmlinux"
    assert said[1] == 130
    assert "BTF cannot be read" in (said[2] or "")
    assert said[3] is True
    assert "BTF cannot be read" in (said[4] or "")


@pytest.mark.parametrize("kind", EVERYWHERE.split())
def test_attaching_that_every_kernel_has(kind: str) -> None:
    assert features.attach(kind) == features.Probe(available=True)


@pytest.mark.parametrize("kind", features.ATTACH_KINDS)
def test_what_cannot_be_attached_has_a_reason(kind: str) -> None:
    probe = features.attach(kind)
    assert bool(probe.reason) != probe.available


def test_kprobes_are_where_their_events_are() -> None:
    events = Path("/sys/bus/event_source/devices/kprobe").exists()
    probe = features.attach("kprobe")
    assert bool(probe) == events
    if features.config("CONFIG_KPROBES") == "n":
        assert probe.reason == "this kernel has no kprobes (CONFIG_KPROBES is not set)"


@pytest.mark.parametrize("kind", ["fentry", "fexit", "fmod_ret", "lsm"])
def test_trampolines_are_named_in_the_refusal(kind: str) -> None:
    probe = features.attach(kind)
    if features.config("CONFIG_BPF_LSM") == "y" and "EPERM" in probe.reason:
        assert probe.reason == f"the kernel refuses {kind} programs (EPERM)"


def test_types_members_and_kfuncs() -> None:
    assert features.type_exists("sk_buff")
    assert features.type_exists("bpf_prog_type")
    assert features.type_has_field("sk_buff", "len")
    assert features.type_has_field("sk_buff", "tstamp"), "a member of an anonymous union"
    assert not features.type_has_field("sk_buff", "lenn")
    assert not features.type_has_field("no_such_struct", "len")
    assert features.kfunc("bpf_fentry_test1")
    assert not features.kfunc("bpf_no_such_kfunc")
    assert not features.type_exists("no_such_struct")
    if Path("/sys/kernel/btf/veth").exists():  # where it is a module
        assert features.kfunc("veth_xmit")


@pytest.mark.parametrize(
    ("probe", "name", "near"),
    [
        (features.program_type, "xpd", "did you mean 'xdp'?"),
        (features.map_type, "ringbuffer", "did you mean 'ringbuf'"),
        (features.attach, "kprobes", "did you mean 'kprobe'"),
        (features.helper, "bpf_ringbuf_outptu", "did you mean 'bpf_ringbuf_output'"),
        (features.program_type, "unspec", "there is no program type 'unspec'"),
    ],
)
def test_unknown_names_list_the_near_matches(probe: object, name: str, near: str) -> None:
    assert callable(probe)
    with pytest.raises(UnknownNameError, match=near.replace("?", r"\?")):
        probe(name)


def test_without_privilege_probes_say_what_they_need() -> None:
    said = answers(
        "import os; assert os.geteuid() == 65534\n"
        "said.append(features.privilege())\n"
        "said += [probe.reason for probe in (features.program_type('xdp'),"
        " features.map_type('ringbuf'), features.map_type('arena'), features.attach('tracepoint'),"
        " features.attach('xdp'), features.attach('cgroup'), features.attach('fentry'),"
        " features.helper('bpf_ringbuf_output'), features.helper('bpf_ringbuf_output', 'xdp'))]",
        *AS_NOBODY,
    )
    sentence = (
        "needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON or else CAP_SYS_ADMIN, which uid 65534 does not "
        "have here; run as root, in a container with --privileged, "
        "or the tests in a machine (--bpf-kernel debian)"
    )
    assert set(said) == {sentence}


def test_without_privilege_what_can_be_read_is_answered() -> None:
    said = answers(
        "said += [bool(features.has_btf()), bool(features.kfunc('bpf_fentry_test1')),"
        " features.helper_ids()['bpf_ringbuf_output'], features.config('CONFIG_BPF_SYSCALL')]",
        *AS_NOBODY,
    )
    assert said == [True, True, 130, features.config("CONFIG_BPF_SYSCALL")]


def test_root_of_a_user_namespace_is_told_so() -> None:
    said = answers("said.append(features.privilege())", "unshare", "--user", "--map-root-user")
    sentence = (
        "needs CAP_BPF in the machine's own user namespace, and uid 0 has it only in another one; "
        "run as root outside of it, or the tests in a machine (--bpf-kernel debian)"
    )
    assert said == [sentence]


def test_capabilities_that_suffice_are_enough() -> None:
    said = answers(
        "said += [features.program_type('xdp').available, features.privilege(),"
        " features.program_type('raw_tracepoint').reason]",
        *(
            "setpriv",
            "--bounding-set=-all,+bpf,+net_admin,+dac_read_search",
            "--inh-caps=-all,+bpf,+net_admin",
        ),
    )
    needs = (
        "needs CAP_PERFMON or else CAP_SYS_ADMIN, which uid 0 does not have here; "
        "run as root, in a container with --privileged, "
        "or the tests in a machine (--bpf-kernel debian)"
    )
    assert said == [True, needs, needs]


def test_a_seccomp_filter_is_told_from_a_kernel_without_bpf() -> None:
    refuse = f"""
import ctypes, struct
load, jump, answer = 0x20, 0x15, 0x06  # classic BPF over struct seccomp_data
eperm, allow = 0x50001, 0x7FFF0000
steps = (load, 0, 0, 0), (jump, 0, 1, {BPF_SYSCALL}), (answer, 0, 0, eperm), (answer, 0, 0, allow)
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
rules = struct.pack("=H6xQ", len(steps), ctypes.addressof(code))
assert ctypes.CDLL(None).prctl(22, 2, rules) == 0
"""
    said = answers(
        f"{refuse}said += [features.privilege(), features.map_type('hash').reason,"
        " features.attach('xdp').reason]"
    )
    sentence = (
        "needs CAP_BPF and no seccomp filter against it: this process's filter refuses bpf(2) "
        "(EPERM); run the container with --privileged or --security-opt seccomp=unconfined, "
        "or the tests in a machine (--bpf-kernel debian)"
    )
    assert set(said) == {sentence}


def test_probes_leave_nothing_behind() -> None:
    answer = answers(
        "import os, pathlib, threading\n"
        "features.attach('tracepoint')\n"  # the thread that sees tracefs stays
        "def state():\n"
        "    paths = [os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')"
        " if os.path.exists(f'/proc/self/fd/{n}')]\n"
        "    mounts = pathlib.Path('/proc/self/mountinfo').read_text()\n"
        "    space = [os.readlink(f'/proc/self/ns/{kind}') for kind in ('net', 'mnt')]\n"
        "    return [sorted(paths), mounts, space, [t.name for t in threading.enumerate()]]\n"
        "before = state()\n"
        "for kind in features.ATTACH_KINDS: features.attach(kind)\n"
        "for name in features.enums.PROGRAM_TYPES[1:]: features.program_type(name)\n"
        "for name in features.enums.MAP_TYPES[1:]: features.map_type(name)\n"
        "for name in features.helper_ids(): features.helper(name)\n"
        "said += [before, state()]"
    )
    assert answer[0] == answer[1]


def test_private_network_is_private_and_raises_what_is_raised() -> None:
    def inode() -> str:
        return str(Path("/proc/thread-self/ns/net").readlink())

    outside, inside = inode(), []
    in_private_network(lambda: inside.append(inode()))
    assert len(inside) == 1
    assert inside[0] != outside == inode()

    def fail() -> None:
        raise LookupError("from inside")

    with pytest.raises(LookupError, match="from inside"):
        in_private_network(fail)
