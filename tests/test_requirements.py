from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from pytest_bpf.kernel import features
from pytest_bpf.plugin.requirements import RequirementError, Requirements
from tests.nobody import AS_NOBODY

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="probing needs root")


class Mark:
    """Shaped like a `pytest.Mark`, which the plugin registers."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.args, self.kwargs = args, kwargs


def parse(**keywords: object) -> Requirements:
    return Requirements.parse((), keywords)


def test_every_keyword() -> None:
    wanted = parse(
        kernel=">=5.8,<99",
        libbpf=">=1.1",
        program_type="xdp",
        map_type=["ringbuf", "hash"],
        attach=("tc", "xdp"),
        helper={"bpf_ringbuf_output", "bpf_get_prandom_u32"},
        kfunc="bpf_cpumask_create",
        btf=True,
        btf_type="sk_buff.tstamp",
        config={"CONFIG_BPF_SYSCALL": "y"},
        command="bpftool",
        cpus=2,
    )
    assert str(wanted.kernel) == "<99,>=5.8"
    assert wanted.map_type == ("ringbuf", "hash")
    assert wanted.helper == ("bpf_get_prandom_u32", "bpf_ringbuf_output")
    assert wanted.config == (("CONFIG_BPF_SYSCALL", "y"),)
    assert (wanted.program_type, wanted.btf, wanted.cpus) == (("xdp",), True, 2)
    assert hash(wanted) == hash(wanted | Requirements())


def test_marks_add_up() -> None:
    marks = [
        Mark(kernel=">=5.8", map_type="hash", cpus=4),
        Mark(kernel="<99", map_type=["ringbuf", "hash"], cpus=2, exact=True),
        Mark(btf=True, config=["CONFIG_BPF"]),
    ]
    assert Requirements.of(marks) == parse(
        kernel=">=5.8,<99",
        map_type=["hash", "ringbuf"],
        cpus=4,
        exact=True,
        btf=True,
        config="CONFIG_BPF",
    )


def test_no_marks_ask_for_nothing() -> None:
    assert Requirements.of([]) == Requirements()
    assert Requirements().missing() == []


@needs_root
def test_what_is_there_is_not_missing() -> None:
    wanted = parse(
        kernel=">=5.8",
        libbpf=">=1.1",
        program_type=["xdp", "sched_cls"],
        map_type="ringbuf",
        attach=["tc", "raw_tp"],
        helper="bpf_skb_load_bytes",  # of sched_cls, not of xdp
        btf=True,
        btf_type=["sk_buff", "sk_buff.tstamp"],
        kfunc="bpf_fentry_test1",
        command=["sh", "cat"],
        cpus=1,
    )
    assert wanted.missing() == []


USABLE = len(os.sched_getaffinity(0))


@needs_root
@pytest.mark.parametrize(
    ("keywords", "phrases"),
    [
        ({"kernel": ">=99"}, [f"kernel >=99 (this is {os.uname().release})"]),
        ({"libbpf": ">=99"}, ["libbpf >=99 (this is 1."]),
        ({"cpus": 4096}, [f"4096 CPUs ({USABLE} usable here)"]),
        ({"exact": True}, ["time that counts instructions (--bpf-exact)"]),
        ({"exact": False}, []),
        ({"config": "CONFIG_NO_SUCH_THING"}, ["CONFIG_NO_SUCH_THING (it is not set)"]),
        ({"config": {"CONFIG_BPF": "m"}}, ["CONFIG_BPF=m (it is y)"]),
        ({"config": {"CONFIG_BPF": "n"}}, ["CONFIG_BPF=n (it is y)"]),
        ({"config": {"CONFIG_NO_SUCH_THING": "n"}}, []),
        ({"config": "CONFIG_HZ"}, ["CONFIG_HZ (it is "]),
        ({"command": ["sh", "no-such"]}, ["command 'no-such' (not on PATH)"]),
        ({"kfunc": "bpf_no_such"}, ["kfunc 'bpf_no_such'"]),
        (
            {"kfunc": "bpf_cpumask_creat"},
            ["kfunc 'bpf_cpumask_creat' (did you mean 'bpf_cpumask_create'?)"],
        ),
        ({"btf_type": "no_such"}, ["BTF type 'no_such'"]),
        ({"btf_type": "sk_buf"}, ["BTF type 'sk_buf' (did you mean 'sk_buff'?)"]),
        ({"btf_type": "task_strcut.pid"}, ["BTF type 'task_strcut' (did you mean 'task_struct'?)"]),
        (
            {"btf_type": "sk_buff.tstmap"},
            ["member 'tstmap' of BTF type 'sk_buff' (did you mean 'tstamp'?)"],
        ),
        ({"btf_type": "no_such.member"}, ["BTF type 'no_such'"]),
        ({"btf_type": "sk_buff.no_such"}, ["member 'no_such' of BTF type 'sk_buff'"]),
        (
            {"program_type": "tracepoint", "helper": "bpf_redirect_map"},
            ["helper 'bpf_redirect_map': tracepoint programs may not call it"],
        ),
    ],
)
def test_what_is_missing_is_named_exactly(keywords: dict[str, Any], phrases: list[str]) -> None:
    if "config" in keywords and features.config("CONFIG_BPF") is None:
        pytest.skip("this kernel's configuration cannot be read")
    found = parse(**keywords).missing()
    assert len(found) == len(phrases)
    for phrase, start in zip(found, phrases, strict=True):
        assert phrase.startswith(start) if start[-1] in " ." else phrase == start


@needs_root
def test_this_kernels_lack_of_kprobes_is_one_phrase() -> None:
    if features.config("CONFIG_KPROBES") != "n":
        pytest.skip("this kernel has kprobes, or does not tell")
    kernel, kprobes = parse(attach=["kprobe", "kretprobe", "tc"], kernel=">=99").missing()
    assert kernel == f"kernel >=99 (this is {os.uname().release})"
    assert kprobes == (
        "kprobe attachment, kretprobe attachment: "
        "this kernel has no kprobes (CONFIG_KPROBES is not set)"
    )


@needs_root
def test_map_type_that_the_kernel_lacks() -> None:
    lacking = [name for name in ("arena",) if not features.map_type(name)]
    assert parse(map_type=["arena", "hash"]).missing() == [f"map type {n!r}" for n in lacking]


@needs_root
def test_without_privilege_it_is_the_privilege_that_is_missing() -> None:
    script = (
        "import json\nfrom pytest_bpf.plugin.requirements import Requirements\n"
        "wanted = dict(program_type='xdp', map_type='ringbuf', attach='tc', btf=True)\n"
        "print(json.dumps(Requirements.parse((), wanted).missing()))"
    )
    command = [*AS_NOBODY, sys.executable]
    output = subprocess.run([*command, "-c", script], capture_output=True, text=True, check=True)
    (phrase,) = json.loads(output.stdout)
    assert phrase.startswith("program type 'xdp', map type 'ringbuf', tc attachment: needs CAP_BPF")


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"kernal": ">=5.8"}, "bpf_requires has no keyword 'kernal'; did you mean 'kernel'?"),
        ({}, "bpf_requires requires nothing; there are: attach, btf, "),
        (
            {"kernel": "5.8"},
            "bpf_requires(kernel='5.8'): must be a version specifier, such as '>=5.8' or ",
        ),
        ({"kernel": ">=five"}, "bpf_requires(kernel='>=five'): must be a version specifier"),
        ({"kernel": ""}, "bpf_requires(kernel=''): must be a version specifier"),
        ({"kernel": 5.8}, "bpf_requires(kernel=5.8): must be a version specifier"),
        ({"libbpf": "1.3"}, "bpf_requires(libbpf='1.3'): must be a version specifier"),
        (
            {"program_type": "xpd"},
            "bpf_requires(program_type='xpd'): there is no program type 'xpd'; did you mean 'xdp'?",
        ),
        ({"map_type": ["hash", "ringbuff"]}, "bpf_requires(map_type='ringbuff'): there is no map"),
        (
            {"attach": "kprob"},
            "bpf_requires(attach='kprob'): there is no kind of attaching 'kprob'",
        ),
        ({"map_type": []}, "bpf_requires(map_type=[]): must be a name or a list of names"),
        ({"map_type": 5}, "bpf_requires(map_type=5): must be a name or a list of names"),
        ({"map_type": ["hash", 5]}, "bpf_requires(map_type=['hash', 5]): 5 is not a name"),
        ({"btf": "yes"}, "bpf_requires(btf='yes'): must be True or False"),
        ({"exact": 1}, "bpf_requires(exact=1): must be True or False"),
        ({"cpus": 0}, "bpf_requires(cpus=0): must be a number of CPUs, 1 or more"),
        ({"cpus": True}, "bpf_requires(cpus=True): must be a number of CPUs"),
        ({"cpus": "2"}, "bpf_requires(cpus='2'): must be a number of CPUs"),
        (
            {"config": "BPF_LSM"},
            "bpf_requires(config='BPF_LSM'): 'BPF_LSM' must be written as 'CONFIG_BPF_LSM'",
        ),
        ({"config": {"CONFIG_X": True}}, "bpf_requires(config={'CONFIG_X': True}): the value of "),
        ({"config": {}}, "bpf_requires(config={}): must name at least one option"),
    ],
)
def test_mistakes_are_one_sentence(keywords: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequirementError) as caught:
        parse(**keywords)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_positional_arguments_are_refused() -> None:
    with pytest.raises(RequirementError, match=r"keywords only, not 'xdp'.*program_type='xdp'"):
        Requirements.parse(("xdp",), {})


def test_a_misspelt_helper_is_a_mistake_where_the_kernel_has_them_all() -> None:
    if max(features.helper_ids().values()) < 211:
        pytest.skip("this kernel does not have every helper there is")
    with pytest.raises(RequirementError, match="did you mean 'bpf_ringbuf_output'"):
        parse(helper="bpf_ringbuf_outptu")


def test_parsing_names_needs_no_libbpf() -> None:
    script = (
        "import sys\nfrom pytest_bpf.plugin.requirements import Requirements\n"
        "assert 'pytest_bpf.kernel.sys.libbpf' not in sys.modules\n"
        "Requirements.parse((), dict(program_type='xdp', map_type='ringbuf', attach='tc'))\n"
        "assert 'libbpf.so' not in open('/proc/self/maps').read()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
