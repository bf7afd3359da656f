"""The path of a test: what it did with BPF, in order, and what that made programs do.

Only with ``--bpf-trace`` and ``--bpf-rerun-traced``: the methods of `STEPS` are then replaced by
ones that note each call, and put back at the end of the session. Nothing else knows of it.
"""

from __future__ import annotations

import functools
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.plugin.artifacts.observing import Observer
from pytest_bpf.plugin.artifacts.path import Path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_bpf.loader import Loader
    from pytest_bpf.netns import Namespace

LONGEST = 100
"""Characters of an argument or a result that are shown."""

STEPS = (
    ("pytest_bpf.loader", "Loader", "load", ("load", "open", "load_bcc", "create_map")),
    ("pytest_bpf.objects.programs.program", "Program", "attach", ("attach", "pin")),
    ("pytest_bpf.objects.programs.program", "Program", "test_run", ("test_run",)),
    ("pytest_bpf.objects.loading.object", "Object", "attach", ("attach",)),
    ("pytest_bpf.objects.link.link", "Link", "detach", ("detach",)),
    ("pytest_bpf.objects.link.link", "Link", "attach", ("update",)),
    ("pytest_bpf.objects.link.link", "Link", "stimulus", ("read",)),
    (
        "pytest_bpf.objects.maps.map",
        "Map",
        "map",
        ("put", "__setitem__", "update", "update_many", "__delitem__", "clear", "push", "pop"),
    ),
    ("pytest_bpf.objects.events.events", "Events", "events", ("read", "read_array")),
    (
        "pytest_bpf.traffic.traffic",
        "Traffic",
        "stimulus",
        ("udp", "tcp", "ping", "frames", "flood"),
    ),
    ("pytest_bpf.syscalls.syscalls", "Syscalls", "stimulus", ("run",)),
    ("pytest_bpf.netns.namespace", "Namespace", "stimulus", ("popen",)),
)
"""The methods that are steps: module, class, kind, names. A step within a step is none."""

PATH = pytest.StashKey[Path]()
"""In the configuration: the path of the test that runs."""

WATCHED = pytest.StashKey[bool]()
"""In the configuration, when the methods note their calls."""

_state = threading.local()


def begin(
    item: pytest.Item,
    loaders: Callable[[], Iterable[Loader]],
    namespaces: Callable[[], Iterable[Namespace]],
) -> None:
    """Begin the path of a test; in the first one of a session, watch the steps."""
    stash = item.config.stash
    if WATCHED not in stash:
        stash[WATCHED] = True
        item.config.add_cleanup(_watch(item.config))
    end(item.config)
    stash[PATH] = Path(Observer(loaders, namespaces))


def _watch(config: pytest.Config) -> Callable[[], None]:
    """Replace the methods; return what puts them back."""
    originals = []
    for module, name, kind, methods in STEPS:
        owner = getattr(import_module(module), name)
        for method in methods:
            if method in vars(owner):
                original = vars(owner)[method]
                originals.append((owner, method, original))
                setattr(owner, method, _noting(config, kind, method, original))

    def undo() -> None:
        for owner, method, original in originals:
            setattr(owner, method, original)
        end(config)

    return undo


def _noting(config: pytest.Config, kind: str, name: str, original: Any) -> Any:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        path = config.stash.get(PATH, None)
        if path is None or getattr(_state, "inside", False):
            return original(self, *args, **kwargs)
        _state.inside = True
        try:
            start = path.before()
            try:
                result = original(self, *args, **kwargs)
            except BaseException as error:
                text = f"{_call(self, name, args, kwargs)} raised {_text(error)}"
                path.add(start, "raised", text)
                raise
            path.add(start, kind, f"{_call(self, name, args, kwargs)}{_result(result)}")
            return result
        finally:
            _state.inside = False

    return method


def _call(owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    given = [*map(_text, args), *(f"{key}={_text(value)}" for key, value in kwargs.items())]
    label = _label(owner)
    if name == "__setitem__":
        return f"{label}[{given[0]}] = {given[1]}"
    if name == "__delitem__":
        return f"del {label}[{given[0]}]"
    return f"{label}.{name}({', '.join(given)})"


def _label(owner: Any) -> str:
    if hasattr(owner, "target") and hasattr(owner, "program"):
        return f"link of {owner.program}"
    if hasattr(owner, "endpoint"):
        return str(owner.endpoint.name)
    if hasattr(owner, "path") and hasattr(owner, "programs"):
        return str(owner.path.name)
    name = getattr(owner, "name", None) or getattr(owner, "_name", None)
    return str(name or type(owner).__name__.lower())


def _result(result: Any) -> str:
    if result is None:
        return ""
    if hasattr(result, "retval"):
        return f" -> {getattr(result.retval, 'name', None) or result.retval}"
    if hasattr(result, "received") and hasattr(result, "sent"):
        return f" -> {result.received} of {result.sent} arrived"
    if isinstance(result, list):
        return f" -> {len(result)} events"
    return f" -> {_text(result)}"


def _text(value: Any) -> str:
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"[:LONGEST]
    if isinstance(value, bytes):
        from pytest_bpf.kernel.layers.packet import Packet
        from pytest_bpf.kernel.layers.text import headline

        return headline(Packet(value)) if any(value) else f"{len(value)} bytes, all 0"
    if hasattr(value, "ifindex") and hasattr(value, "namespace"):
        return f"{value.name} of {value.namespace.name}"
    if hasattr(value, "inode") or (hasattr(value, "section") and hasattr(value, "name")):
        return str(value.name)
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def end(config: pytest.Config) -> None:
    """End the path of the test that ran, if there is one."""
    path = config.stash.get(PATH, None)
    if path is not None:
        del config.stash[PATH]
        path.close()
