"""What a row of the table of programs holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class ProgramKind:
    """One kind of program: how it is written, loaded, attached and run.

    ``name``: what messages and `features.attach` call it. ``type``: libbpf's name of the program
    type. ``sections``: what ``SEC()`` may begin with, each with the expected attach type.
    ``target``: what it is attached to, for messages; empty where the section or a name says it.
    ``way``: the module of ``objects/link/ways`` that attaches it; empty where none does.
    ``options``: the options that `Program.attach` takes for it. ``modes``: the ways that ``mode=``
    chooses from, where it does. ``context``: the struct that its
    argument points to; empty where that depends on the hook. ``passes``: what it returns to change
    nothing. ``test_run``: how ``BPF_PROG_RUN`` calls it: with a ``"packet"``, a ``"socket"`` (a
    struct bpf_sk_lookup), the ``"arguments"`` of a raw tracepoint, a ``"context"``, through the
    kernel's own test ``"function"``; empty where it cannot. ``since``: the first kernel that has
    it. ``unseen``: it can stay attached while no process holds the attachment. ``probe``: the kind
    that `features.attach` asks the kernel for, where it is not ``name``. ``caller``: what calls it
    for nearly no time, a ``"trampoline"``, the ``"dispatcher"`` of XDP or a ``"raw_tracepoint"``;
    empty where it is called as by ``BPF_PROG_RUN``. ``with_binary``: the kind that it is where
    ``binary=`` is given.
    """

    name: str
    type: str
    sections: Mapping[str, int] = field(default_factory=dict)
    target: str = ""
    way: str = ""
    options: tuple[str, ...] = ()
    modes: Mapping[str, str] = field(default_factory=dict)
    context: str = ""
    passes: int = 0
    test_run: str = ""
    since: tuple[int, int] = (0, 0)
    unseen: bool = False
    probe: str = ""
    caller: str = ""
    with_binary: str = ""


COOKIE = ("cookie",)
ORDER = ("before", "after", "first", "last", "revision")
"""Options that several kinds take."""
