"""What the verifier's messages mean, in plain words, and what usually mends each.

To add one: a row here, and a program that is refused for it in ``tests/test_explanations.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Explanation:
    """One kind of refusal: the messages it has, what they mean, what usually mends them."""

    name: str
    pattern: re.Pattern[str]
    meaning: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.meaning}; {self.remedy}"


def _row(name: str, pattern: str, meaning: str, remedy: str) -> Explanation:
    return Explanation(name, re.compile(pattern), meaning, remedy)


EXPLANATIONS = (
    _row(
        "unchecked look-up",
        r"invalid mem access '\w+_or_null'|R\d type=\w+_or_null expected"
        r"|Possibly NULL pointer passed",
        "the pointer may be NULL: a look-up or a reservation can find nothing",
        "check it before it is used: if (!value) return 0;",
    ),
    _row(
        "packet bounds",
        r"invalid access to packet|offset is outside of the packet",
        "the packet may end before these bytes",
        "compare with data_end first: if ((void *)(header + 1) > data_end) return XDP_PASS;",
    ),
    _row(
        "unbounded pointer arithmetic",
        r"math between \w+ pointer and register with unbounded"
        r"|value -?\d+ makes \w+ pointer be out of|pointer offset -?\d+ is not allowed",
        "the number that is added to the pointer has no limit that the verifier can see",
        "limit it just before: if (index >= SIZE) return 0; a mask (index & (SIZE - 1)) does too",
    ),
    _row(
        "bounds check",
        r"invalid access to (?:map value|memory|map key)|(?:max|min) value is (?:outside|negative)"
        r"|unbounded memory access|unbounded min value|invalid (?:zero-)?size(?:d)? (?:read|access)"
        r"|variable (?:stack|offset) (?:access|read|write)|invalid variable-offset",
        "an index or a size may be larger than what it points into, or negative",
        "limit it before: if (index >= SIZE) return 0; use an unsigned type, so that it cannot be "
        "negative",
    ),
    _row(
        "endless loop",
        r"infinite loop detected|back-edge from insn|is an infinite loop",
        "the loop may never end: the verifier sees nothing that its condition tests change",
        "count up to a constant: for (int i = 0; i < 100; i++), or use bpf_loop() or bpf_for()",
    ),
    _row(
        "too complex",
        r"BPF program is too large|too complex|too many instructions|program is too large"
        r"|too many states|call stack .* is too deep",
        "there are more paths through the program than the verifier follows",
        "make loops shorter or use bpf_loop(), move parts into functions that are not static, and "
        "test less inside of loops",
    ),
    _row(
        "unreleased reference",
        r"Unreleased reference|would lead to reference leak|reference has not been",
        "something is acquired (a reservation, a socket, a task) and on this path never given back",
        "release it on every path: bpf_ringbuf_submit() or _discard(), bpf_sk_release(), ...",
    ),
    _row(
        "license",
        r"GPL-restricted function|GPL-compatible|GPL compatible",
        "the helper is for programs under the GPL, and this one does not say that it is",
        'declare it: char _license[] SEC("license") = "GPL";',
    ),
    _row(
        "stack size",
        r"combined stack size|invalid write to stack R10 off=-(?:5[2-9]\d|51[3-9]|[6-9]\d\d|\d{4,})"
        r"|stack depth \d+ exceeds|stack of \d+",
        "the program and the functions it calls need more stack than the 512 bytes there are",
        "move large variables into a per-CPU array of one element",
    ),
    _row(
        "helper not for this program",
        r"cannot use helper|unknown func |helper call is not allowed in probe",
        "programs of this type may not call this helper",
        "see bpf-helpers(7) for those that they may call, or use another type of program",
    ),
    _row(
        "kfunc not for this program",
        r"calling kernel function \S+ is not allowed|kernel function call .* not allowed",
        "programs of this type may not call this kernel function",
        "see the kernel's documentation of kfuncs for the types of programs that may",
    ),
    _row(
        "no return value",
        r"^R0 !read_ok",
        "the program, or a function of it, ends without a return value on this path",
        "return a value on every path",
    ),
    _row(
        "unreachable code",
        r"__bpf_trap|unreachable insn|last insn is not an exit|jump out of range|falls through"
        r"|fell through",
        "instructions follow that nothing reaches, or the last one does not return",
        "return a value at the end of every function; undefined behaviour (a division by zero, a "
        "missing return, a variable without a value, a program that is called abort or exit) lets "
        "the compiler leave the rest out",
    ),
    _row(
        "uninitialised",
        r"R\d !read_ok|invalid (?:indirect )?(?:read from|access to) stack"
        r"|invalid read from stack|uninitialized|invalid indirect",
        "it is read before anything was written there, in part at least (padding counts)",
        "give it a value where it is declared: struct event event = {};",
    ),
    _row(
        "return value",
        r"At program exit the register R0 has|R0 has (?:value|unknown scalar|smin|smax)"
        r"|should have been in",
        "the program returns a value that programs of its type may not return",
        "return one of those that the message names",
    ),
    _row(
        "context member",
        r"invalid bpf_context access|dereference of modified ctx ptr|variable ctx access",
        "programs of this type have no such member in their context, or may not access it so",
        "read a member of the context's own type as it is declared, by name",
    ),
    _row(
        "kernel pointer",
        r"invalid mem access '(?:scalar|inv|ptr_|mem_rdonly)",
        "to the verifier this is a number and not a pointer that it knows",
        "read kernel memory by BPF_CORE_READ() or bpf_probe_read_kernel(), that of a process by "
        "bpf_probe_read_user()",
    ),
    _row(
        "read-only",
        r"write into map forbidden|cannot write into|write to (?:change|read-only)"
        r"|only read is supported|the prog does not allow writes to packet data|rdonly",
        "this memory may be read and not written",
        "write to a map that is not read-only, or to a copy on the stack",
    ),
    _row(
        "spin lock",
        r"holding a lock|bpf_spin_lock|while holding|lock is held|bpf_spin_unlock",
        "under a bpf_spin_lock() only plain code may run, and every path must unlock",
        "look up values and call helpers before the lock, and unlock before every return",
    ),
    _row(
        "wrong kind of argument",
        r"R\d type=\S+ expected=|arg#?\d+ .*(?:expected|must)|expected pointer to"
        r"|cannot pass map_type",
        "the helper wants another kind of pointer here",
        "pass what its documentation says: a map by &name, memory of the stack or of a map",
    ),
    _row(
        "sleeping",
        r"might sleep|sleepable|non-sleepable",
        "the helper may sleep, and the program runs where nothing may",
        'use a sleepable section (SEC("lsm.s/..."), SEC("fentry.s/...")) or another helper',
    ),
    _row(
        "unprivileged",
        r"pointer comparison prohibited|pointer arithmetic on \w+ pointer prohibited|leaks addr",
        "without CAP_PERFMON a program may not let pointers be seen or computed with",
        "run the tests with CAP_PERFMON or as root",
    ),
)
"""Looked through from the top: the first row whose pattern is in the message counts."""


def explanation(reason: str) -> Explanation | None:
    """Return what the verifier's message means, None where that is not known.

    >>> explanation("R0 invalid mem access 'map_value_or_null'").name
    'unchecked look-up'
    """
    return next((row for row in EXPLANATIONS if row.pattern.search(reason)), None)
