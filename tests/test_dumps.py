"""What the kernel runs of a program: instructions and machine code, with their source lines."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import UnavailableError, VerifierError
from pytest_bpf.kernel.programs import assembly
from pytest_bpf.kernel.programs.disassembly import disassemble
from pytest_bpf.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.objects import Program

TEXT = """#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4);
    __type(key, __u32); __type(value, __u64); } counts SEC(".maps");
char _license[] SEC("license") = "GPL";
long total;
static __attribute__((noinline)) long twice(long n) {
    return n * total;
}
SEC("socket") int count(struct __sk_buff *skb) {
    __u32 key = skb->len;
    __u64 *value = bpf_map_lookup_elem(&counts, &key);
    if (value)
        __sync_fetch_and_add(value, 1);
    return twice(key);
}
"""


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with Loader() as bpf:
        yield bpf.load(TEXT, name="dumped").programs["count"]


def test_instructions_have_source_lines(program: Program) -> None:
    dump = program.xlated
    assert sum(len(instruction.code) for instruction in dump) == program.prog_size
    assert [instruction.function for instruction in dump[:1]] == ["count"]
    assert dump[-1].function == "twice"
    assert dump[-1].text == "(95) exit"
    adding = [one for one in dump if one.text.startswith("(db) ")]
    assert [one.line for one in adding] == [14]
    assert adding[0].source == "__sync_fetch_and_add(value, 1);"
    assert adding[0].file.endswith(".bpf.c")
    calls = [one.text for one in dump if one.text.startswith("(85) call")]
    assert any("lookup_elem" in call for call in calls)
    assert any(call.startswith("(85) call pc+") for call in calls)
    assert any("= map[id:" in one.text for one in dump)


def test_the_text_has_functions_and_lines(program: Program) -> None:
    lines = str(program.xlated).splitlines()
    assert lines[0] == "count:"
    assert "twice:" in lines
    assert any(
        line.startswith("; __u32 key = skb->len; @ ") and line.endswith(":11") for line in lines
    )


@pytest.mark.skipif(os.uname().machine not in {"x86_64", "aarch64"}, reason="no disassembler")
def test_machine_code_has_source_lines(program: Program) -> None:
    pytest.importorskip("capstone")
    dump = program.jited
    assert sum(len(instruction.code) for instruction in dump) == program.prog_size_jited
    assert {instruction.function for instruction in dump} == {"count", "twice"}
    assert {"__sync_fetch_and_add(value, 1);"} <= {instruction.source for instruction in dump}


def test_without_capstone_it_says_what_to_install(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "capstone", None)
    with pytest.raises(UnavailableError, match=r"pytest-bpf\[disasm\]"):
        program.jited  # noqa: B018


CODES = {
    assembly.move(3, -1): "(b7) r3 = -1",
    bytes.fromhex("0f21000000000000"): "(0f) r1 += r2",
    bytes.fromhex("6701000020000000"): "(67) r1 <<= 32",
    bytes.fromhex("c701000020000000"): "(c7) r1 s>>= 32",
    bytes.fromhex("8400000000000000"): "(84) w0 = -w0",
    bytes.fromhex("3f21010000000000"): "(3f) r1 s/= r2",
    bytes.fromhex("bf21080000000000"): "(bf) r1 = (s8)r2",
    bytes.fromhex("dc01000010000000"): "(dc) r1 = be16 r1",
    bytes.fromhex("7110ffff00000000"): "(71) r0 = *(u8 *)(r1 -1)",
    bytes.fromhex("9110ffff00000000"): "(91) r0 = *(s8 *)(r1 -1)",
    bytes.fromhex("7b1af8ff00000000"): "(7b) *(u64 *)(r10 -8) = r1",
    bytes.fromhex("620af8ff05000000"): "(62) *(u32 *)(r10 -8) = 5",
    bytes.fromhex("db210000e1000000"): "(db) r2 = atomic64_xchg((u64 *)(r1 +0), r2)",
    bytes.fromhex("db21000001000000"): "(db) r2 = atomic64_fetch_add((u64 *)(r1 +0), r2)",
    bytes.fromhex("c321000000000000"): "(c3) lock *(u32 *)(r1 +0) += r2",
    bytes.fromhex("1501050000000000"): "(15) if r1 == 0x0 goto pc+5",
    bytes.fromhex("6e21feff00000000"): "(6e) if w1 s> w2 goto pc-2",
    bytes.fromhex("0500ffff00000000"): "(05) goto pc-1",
    bytes.fromhex("1801000001000000000000000000ff00"): "(18) r1 = 0xff000000000001",
    bytes.fromhex("8510000003000000"): "(85) call pc+3",
}
"""Instructions and what the kernel's verifier prints for them."""


@pytest.mark.skipif(sys.byteorder == "big", reason="these bytes are little-endian")
@pytest.mark.parametrize("code", CODES, ids=CODES.values())
def test_the_notation_is_the_kernel_s(code: bytes) -> None:
    assert [text for _, _, text in disassemble(code)] == [CODES[code]]


def test_the_printer_agrees_with_the_verifier(program: Program) -> None:
    log = program.verifier_log(2)
    shown = {line.partition(": ")[2].partition(";")[0].strip() for line in log.splitlines()}
    ours = [one.text for one in program.xlated]
    alike = [text for text in ours if text in shown]
    assert len(alike) >= len(ours) * 0.6  # calls and maps have other operands in the kernel's copy


def test_a_log_that_was_kept_is_not_made_again() -> None:
    with Loader() as bpf:
        program = bpf.load(TEXT, name="logged", log_level=2).programs["count"]
        assert "R1=ctx()" in program.verifier_log()
        assert program._load_log == program.verifier_log()


def test_a_refused_program_has_the_log_of_its_own_load() -> None:
    text = TEXT.replace("if (value)\n", "")
    with Loader() as bpf, pytest.raises(VerifierError, match="map_value_or_null") as caught:
        bpf.load(text, name="refused", log_level=2)
    assert "R1=ctx()" in caught.value.log


def test_moves_that_are_none_are_named() -> None:
    per_cpu = bytes((0xBF, 0x00, 0xFF, 0xFF, 0, 0, 0, 0))
    cast = bytes((0xBF, 0x21, 0x01, 0x00, 0x01, 0, 0, 0))
    texts = [text for _, _, text in disassemble(per_cpu + cast)]
    assert texts == [
        "(bf) r0 = &(void __percpu *)(r0)",
        "(bf) r1 = addr_space_cast(r2, 0, 1)",
    ]
