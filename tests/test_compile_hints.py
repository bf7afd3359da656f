"""What usually mends a complaint of the compiler, by sources with that mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_bpf.compile import compile_source, find_compiler
from pytest_bpf.errors import CompileError

if TYPE_CHECKING:
    from pathlib import Path

VMLINUX = '#include "vmlinux.h"\n'
HELPERS = "#include <bpf/bpf_helpers.h>\n"
XDP = 'SEC("xdp") int p(struct xdp_md *ctx) { '

MISTAKES = {
    "a function called as its section": (
        VMLINUX + HELPERS + 'SEC("tc") int tc(struct __sk_buff *skb) { return 0; }\n',
        "the section has that name: call the function otherwise than SEC",
    ),
    "a macro": (
        VMLINUX + HELPERS + XDP + "return ETH_P_IP; }\n",
        "ETH_P_IP'; BTF has no macros, so vmlinux.h has none: write #define ETH_P_IP 0x0800",
    ),
    "an error code": (VMLINUX + HELPERS + XDP + "return -EINVAL; }\n", "#define EINVAL 22"),
    "a family": (VMLINUX + HELPERS + XDP + "return AF_INET6; }\n", "#define AF_INET6 10"),
    "linux/ beside vmlinux.h": (
        VMLINUX + "#include <linux/bpf.h>\n" + HELPERS + XDP + "return 0; }\n",
        "vmlinux.h has the kernel's types already: leave out #include <linux/bpf.h>",
    ),
    "no bpf_helpers.h": (VMLINUX + XDP + "return 0; }\n", "by <bpf/bpf_helpers.h>: is that"),
    "no bpf_core_read.h": (
        VMLINUX + HELPERS + XDP + "return BPF_CORE_READ(ctx, data); }\n",
        "BPF_CORE_READ is declared by <bpf/bpf_core_read.h>",
    ),
    "a misspelt header": (
        VMLINUX + "#include <bpf/bpf_helper.h>\n",
        "did you mean bpf/bpf_helpers.h?",
    ),
    "BCC's dialect": (
        "#include <uapi/linux/ptrace.h>\nBPF_HASH(counts, u32);\n",
        "load it by bpf.load_bcc()",
    ),
    "libc": (VMLINUX + HELPERS + XDP + 'printf("x"); return 0; }\n', "library: use bpf_printk()"),
    "a size that varies": (
        VMLINUX + HELPERS + XDP + "char a[9], b[9] = {}; memcpy(a, b, ctx->data); return a[1]; }\n",
        "use __builtin_memcpy() with a constant size",
    ),
    "floating point": (
        VMLINUX + HELPERS + XDP + "double d = ctx->data; return d * 1.5; }\n",
        "BPF has no floating point",
    ),
    "signed division": (
        VMLINUX + HELPERS + XDP + "int n = ctx->data; return n / (int)ctx->rx_queue_index; }\n",
        "divide unsigned numbers, or compile with -mcpu=v4",
    ),
    "a member": (
        VMLINUX + HELPERS + XDP + "return ((struct task_struct *)0)->pidd; }\n",
        "vmlinux.h has struct task_struct as one kernel has it",
    ),
    "a number for an address": (
        VMLINUX + HELPERS + XDP + "bpf_map_lookup_elem(ctx, 3); return 0; }\n",
        "a key or a value as &variable",
    ),
    "a struct that is not there": (
        VMLINUX + HELPERS + "struct event { int n; };\n" + XDP + "return sizeof(struct evnt); }\n",
        "says what struct evnt is; did you mean struct event?",
    ),
    "a macro that was not expanded": (
        VMLINUX + HELPERS + 'SEC("kprobe/x") int BPF_KPROBE(p, int x) { return x; }\n',
        "BPF_KPROBE is declared by <bpf/bpf_tracing.h>",
    ),
    "no types": (HELPERS + "u32 n;\n", 'write #include "vmlinux.h" or <linux/types.h> first'),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained(name: str) -> None:
    text, words = MISTAKES[name]
    with pytest.raises(CompileError) as caught:
        compile_source(text, name="mistake", compiler=find_compiler("zig"))
    assert words in str(caught.value).replace("\n", " ")


def test_a_function_without_its_header_is_explained_by_a_compiler_that_refuses_it() -> None:
    text = VMLINUX + HELPERS + XDP + "return bpf_htons(5); }\n"
    with pytest.raises(CompileError, match=r"bpf_htons is declared by <bpf/bpf_endian.h>"):
        compile_source(text, name="mistake", compiler=find_compiler("zig"))


def test_a_header_beside_the_source_has_near_names(tmp_path: Path) -> None:
    (tmp_path / "limits_of_ours.h").write_text("")
    source = tmp_path / "near.bpf.c"
    source.write_text('#include "limit_of_ours.h"\n')
    with pytest.raises(CompileError, match=r"did you mean limits_of_ours.h\?"):
        compile_source(source)


def test_a_line_with_a_helper_does_not_blame_the_headers() -> None:
    text = VMLINUX + HELPERS + XDP + "return bpf_map_lookup_elem(ctx); }\n"
    with pytest.raises(CompileError) as caught:
        compile_source(text, name="few", compiler=find_compiler("zig"))
    assert "newer libbpf" not in str(caught.value)


def test_headers_that_are_older_than_what_is_used_are_named() -> None:
    text = VMLINUX + HELPERS + XDP + "return bpf_of_tomorrow(ctx); }\n"
    with pytest.raises(CompileError, match=r"bpf_helpers.h> that is included is older than bpf_of"):
        compile_source(text, name="mistake", compiler=find_compiler("zig"))


def test_the_first_errors_are_shown_and_all_are_kept() -> None:
    text = "".join(f"int v{number} = nothing{number};\n" for number in range(30))
    with pytest.raises(CompileError) as caught:
        compile_source(text, name="many")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("many.bpf.c:1: ")
    assert lines[0].endswith("(and 29 more errors)")
    assert [line.split(":")[1] for line in lines[1:4]] == ["2", "3", "4"]
    assert len(lines) == 5
    assert "nothing29" in caught.value.output
