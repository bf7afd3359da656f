"""Whatever a public function is given, it answers, or says what is wrong in a sentence of ours."""

from __future__ import annotations

import inspect
import linecache
import os
import warnings
from typing import TYPE_CHECKING, Any

import pytest

import pytest_bpf
from pytest_bpf import netns
from pytest_bpf.errors import BpfError, CompileError, MapError, PlaceError, ValueTypeError
from pytest_bpf.errors.arguments import checked, find_fault
from pytest_bpf.loader import Loader
from pytest_bpf.netns.places import Places
from pytest_bpf.traffic import packets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pytest_bpf.netns.namespace import Namespace

SOURCE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct event { __u32 number; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8);
         __type(key, __u32); __type(value, __u64); } table SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
__u64 total;
SEC("xdp") int pass(struct xdp_md *ctx)
{
	struct event event = {};
	bpf_ringbuf_output(&events, &event, sizeof(event), 0);
	total++;
	return XDP_PASS;
}
SEC("tracepoint/syscalls/sys_enter_getppid") int parent(void *ctx) { return 0; }
"""

WRONG: tuple[Any, ...] = (
    *(None, -1, 1.5, "x", "\0", "\ud800", b"ab", [], {}, object(), lambda: None, "a" * 5000),
    {1: 2},
)

RIGHT: dict[str, Any] = {
    "source": SOURCE,
    "packet": bytes(64),
    "frame": bytes(64),
    "key": 1,
    "value": 1,
    "elements": {1: 1},
    "count": 1,
}
"""What the other required parameters of these names get."""

INNER = {"close", "from_fd", "from_id", "from_identity", "owning", "borrow", "by_libbpf", "call"}
"""Methods that take over a descriptor, that end the thing, or that pass on to libbpf."""

FUNCTIONS = ("compile_source", "costs_of", "latency", "map_speed", "measure", "overhead", "query")
FIXTURES = ("bpf_cgroup", "bpf_drops", "bpf_syscalls", "bpf_agent")


def things(bpf: Any, places: Any, request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """Yield everything that a test has in hand, by name."""
    left, right = places.pair()
    obj, opened = bpf.load(SOURCE, name="wrong"), bpf.open(SOURCE, name="opened")
    yield from {
        "Loader": bpf,
        "Object": obj,
        "Program": obj.programs["pass"],
        "Program of a tracepoint": obj.programs["parent"],
        "Map": obj.maps["table"],
        "Map of events": obj.maps["events"],
        "Events": obj.maps["events"].events("struct event"),
        "Globals": obj.globals,
        "programs": obj.programs,
        "Namespace": left,
        "Traffic": left.traffic,
        "Places": places,
        "OpenObject": opened,
        "OpenProgram": opened.programs["pass"],
        "OpenMap": opened.maps["table"],
        "Link": obj.programs["pass"].attach(right.iface),
    }.items()
    for name in FIXTURES:
        yield name, request.getfixturevalue(name)
    for name in FUNCTIONS:
        yield name, getattr(pytest_bpf, name)
    for name in ("impair", "pair", "router", "bridge"):
        yield name, getattr(netns, name)
    for name in filter(lambda each: each.endswith("_frame"), dir(packets)):
        yield name, getattr(packets, name)


def callables(name: str, thing: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield a function, or the public methods of an object."""
    if inspect.isfunction(thing):
        yield name, thing
        return
    for attribute in dir(type(thing)):
        public = not attribute.startswith("_") or attribute in {"__getitem__", "__call__"}
        static = inspect.getattr_static(type(thing), attribute)
        if public and attribute not in INNER and callable(static) | hasattr(static, "__func__"):
            yield f"{name}.{attribute}", getattr(thing, attribute)


def attempts(
    call: Callable[..., Any], others: Sequence[Any] = ()
) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    """Yield the arguments of calls of which one, or all without a right value, are wrong."""
    parameters = inspect.signature(call).parameters.values()
    needed = [each for each in parameters if each.default is each.empty and each.kind < 2]
    needed += [
        each for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty
    ]
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        for wrong in (*WRONG, *others):
            values = {each.name: RIGHT.get(each.name, wrong) for each in needed}
            values[parameter.name] = wrong
            positional = [
                values.pop(each.name)
                for each in parameters
                if each.kind in {each.POSITIONAL_ONLY, each.VAR_POSITIONAL} and each.name in values
            ]
            yield parameter.name, positional, values


def complaint(call: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> str:
    """Call it; return the error when it is not ours, empty when it is or there is none."""
    try:
        result = call(*args, **kwargs)
        if hasattr(result, "__enter__"):
            with result:
                pass
    except BpfError:
        return ""
    except Exception as error:  # noqa: BLE001 (each is what is looked for)
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        assert last is not None
        file = last.tb_frame.f_code.co_filename
        line = linecache.getline(file, last.tb_lineno).strip()
        missing = isinstance(error, TypeError) and "argument" in str(error) and "()" in str(error)
        ours = f"{os.sep}pytest_bpf{os.sep}" in file and line.startswith("raise ")
        return "" if ours or missing else f"{type(error).__name__}: {error} ({file}: {line})"
    return ""


@pytest.mark.skipif(os.geteuid() != 0, reason="programs and namespaces need root")
def test_wrong_arguments_of_every_public_function(
    bpf: Any,
    bpf_places: Any,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong: dict[tuple[str, str], str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        all_of_them = dict(things(bpf, bpf_places, request))
        others = [all_of_them[name] for name in ("Namespace", "Program", "Link")]
        for name, thing in all_of_them.items():
            for called, call in callables(name, thing):
                for parameter, args, kwargs in attempts(call, others):
                    if text := complaint(call, args, kwargs):
                        wrong.setdefault(
                            (called, parameter), f"{args} {kwargs}: {text[-300:]}"[-500:]
                        )
    assert not wrong, "\n".join(f"{' '.join(where)} {text}" for where, text in wrong.items())


@pytest.mark.skipif(os.geteuid() != 0, reason="programs and namespaces need root")
def test_whatever_is_closed_can_be_shown(request: pytest.FixtureRequest) -> None:
    """What a traceback shows of a thing is its `repr`, which is asked for when all is closed."""
    with Places() as places, Loader() as bpf:
        all_of_them = dict(things(bpf, places, request))
        obj, opened = all_of_them["Object"], all_of_them["OpenObject"]
        more = [obj.maps, opened.globals, opened.maps, opened.programs, places.cgroup()]
        more += [obj.programs["pass"].test_run(bytes(64)), all_of_them["Namespace"].iface.capture()]
        some = (obj.globals, opened.globals, opened.maps["table"])
        before = [repr(thing) for thing in some]
    assert all(repr(thing) + str(thing) for thing in (*all_of_them.values(), *more))
    assert before == ["{'total': 1}", "{'total': 0}", "<OpenMap table (hash)>"]
    assert all(repr(thing).endswith(", closed>") for thing in some)


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_another_thing_of_ours_is_named(bpf_netns: Namespace, bpf: Loader) -> None:
    with pytest.raises(ValueTypeError, match=r"interface is <Namespace .*, and must be Interface"):
        netns.impair(bpf_netns, delay=1)  # type: ignore[arg-type]
    with pytest.raises(PlaceError, match="cannot be closed with itself"):
        bpf_netns.keep(bpf_netns)
    kept = bpf_netns.keep(bpf.create_map("array", key="u32", value="u32", max_entries=1))
    bpf_netns.close()
    with pytest.raises(MapError, match="is gone"):
        kept[0]


def greet(name: str, times: int = 1, *others: str | None, loud: bool = False) -> str:
    if loud:
        return ", ".join([name.upper() * times, *map(str.upper, others)])  # type: ignore[arg-type]
    raise AttributeError("of its own")


@pytest.mark.parametrize(
    ("args", "kwargs", "sentence"),
    [
        ((5,), {"loud": True}, r"greet\(\): name is 5 \(int\), and must be str"),
        (("a", "b"), {"loud": True}, r"greet\(\): times is 'b' \(str\), and must be int"),
        (("a", 1, 7), {"loud": True}, r"greet\(\): others is 7 \(int\), and must be str | None"),
        (("a\0",), {}, r"greet\(\): name is 'a\\x00', which holds a NUL character"),
        (("\ud800",), {}, r"greet\(\): name is '\\ud800', which is no text that can be encoded"),
        (("a" * 300,), {}, r"greet\(\): name has 300 characters, which is too long"),
    ],
)
def test_the_sentence_names_the_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueTypeError, match=sentence):
        checked(greet)(*args, **kwargs)


def test_an_error_that_no_argument_explains_stays_what_it_is() -> None:
    with pytest.raises(AttributeError, match="of its own"):
        checked(greet)("a", 2, None)
    with pytest.raises(TypeError, match="unexpected keyword"):
        checked(greet)("a", quiet=True)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("annotation", "right", "wrong"),
    [
        ("str | os.PathLike[str]", ["x", __import__("pathlib").Path("x")], [5, b"x", None]),
        ("Iterable[str]", [["x"], ("x",), {"x": 1}], [5, [1], b"ab"]),
        ("Mapping[str, Any] | None", [{}, None], [[], "x"]),
        ("Mapping[str, int]", [{"a": 1}], [{1: 1}, {"a": "x"}]),
        ("Namespace", [], [packets.CLIENT]),
        ("Literal['udp', 'tcp']", ["udp"], ["icmp", []]),
        ("Callable[[int, str], None] | None", [print, None], [5, "x"]),
        ("Namespace", [pytest], ["x", 5, None, object()]),
        ("bool", [True, 0], [None, 2, []]),
        ("float", [1, 1.5], ["1", None]),
        ("Any", [None, 5], []),
        ("T", [None, 5], []),
    ],
)
def test_what_an_annotation_takes(annotation: str, right: list[Any], wrong: list[Any]) -> None:
    def function(argument: Any) -> None: ...

    function.__annotations__["argument"] = annotation
    for value in right:
        assert find_fault(function, (value,), {}) is None
    for value in wrong:
        assert find_fault(function, (value,), {}) is not None


@pytest.mark.parametrize("source", [None, 5, object()])
def test_what_is_no_source(tmp_path: Path, source: Any) -> None:
    loader = Loader(tmp_path)
    with pytest.raises(ValueTypeError, match=r"Loader\.load\(\): source is .* must be a path, C "):
        loader.load(source)
    with pytest.raises(CompileError, match="the list of sources is empty"):
        loader.load([])
