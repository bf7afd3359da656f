"""What each start of pytest finds out of installed files, kept with the saved machine.

In a machine a name that is looked at costs some 30 times what it costs outside, and pytest looks at
thousands before it collects. All that is kept here follows from files and variables alone: a
machine whose files have changed is not restored, and with other variables nothing kept is used.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

HOOKS = "pytest_"
"""How the names of hooks begin: pytest looks at no other name of a plugin."""

ONLY_PRINTED = ("COLUMNS", "LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LINES")
"""The variables that argparse asks for with each option; only what it prints depends on them."""

PLUGINS: list[object] = []
"""The plugins of a warm-up's session, as `Witness` saw them: modules and objects."""


class Witness:
    """A plugin of pytest that notes which plugins there are."""

    def pytest_sessionfinish(self, session: Any) -> None:
        """Note them when all are there."""
        PLUGINS[:] = session.config.pluginmanager.get_plugins() - {self}


@contextmanager
def metadata_kept() -> Iterator[None]:
    """Keep what is read of installed distributions meanwhile: each start of pytest reads it all."""
    kinds = [_keep(name) for name in ("entry_points", "files")]
    yield
    for kept in kinds:
        kept.is_open = False
    _keep_names(sys.path)


def keep_names_of_plugins() -> None:
    """Let pluggy and pytest look at the hooks and fixtures of `PLUGINS`, not at every name.

    Each goes through ``dir`` of a plugin; for these modules, and objects of these classes, that is
    another one.
    """
    _replace_dir("pluggy._manager", _hooks)
    kind = getattr(sys.modules.get("_pytest.fixtures"), "FixtureFunctionDefinition", None)
    if kind is not None:  # since pytest 8.4; before, whatever has an attribute is a fixture
        _replace_dir("_pytest.fixtures", partial(_of_kind, kind))


def keep_config() -> None:
    """Let the next session have a configuration with pytest's own plugins that is made now."""
    config_module: Any = importlib.import_module("_pytest.config")
    plain = config_module.get_config
    with _variables_read() as read:
        kept = [plain()]
    own = set(config_module.default_plugins)

    def get_config(args: Any = None, plugins: Any = None, **more: Any) -> Any:
        words = list(map(str, args or ()))
        blocked = {word.rpartition("no:")[2] for word in words if "no:" in word}
        is_alike = all(os.environ.get(name) == read[name] for name in read.keys() - {*ONLY_PRINTED})
        if not kept or more.get("prog") or blocked & own or not is_alike:
            return plain(args, plugins, **more)
        config = kept.pop()
        config.invocation_params = config.InvocationParams(
            args=words, plugins=plugins, dir=Path.cwd()
        )
        config.pluginmanager.consider_preparse(words, exclude_only=True)
        return config

    config_module.get_config = get_config


@contextmanager
def _variables_read() -> Iterator[dict[str, str | None]]:
    """Note the variables of the environment that are asked for meanwhile, and their values."""
    read: dict[str, str | None] = {}
    kind: Any = type(os.environ)
    plain = kind.__getitem__

    def get(environment: Any, name: str) -> str:
        read[name] = None
        read[name] = value = plain(environment, name)
        return str(value)

    kind.__getitem__ = get
    try:
        yield read
    finally:
        kind.__getitem__ = plain


def _hooks(names: Mapping[str, object]) -> list[str]:
    return [name for name in names if name.startswith(HOOKS)]


def _of_kind(kind: type, names: Mapping[str, object]) -> list[str]:
    return [name for name, value in names.items() if type(value) is kind]


def _replace_dir(user: str, select: Callable[[Mapping[str, object]], list[str]]) -> None:
    """Let a module find only such names by ``dir`` of `PLUGINS` and of others of their classes.

    What a module or an object has is looked at each time, what a class has when it has more than
    before.
    """
    plain: Callable[[object], list[str]] = dir
    modules = {plugin for plugin in PLUGINS if type(plugin) is ModuleType}
    modules -= {module for module in modules if "__dir__" in vars(module)}
    classes: dict[type, tuple[int, list[str]]] = {}
    for kind in map(type, PLUGINS):
        says_itself = any("__dir__" in vars(base) for base in kind.__mro__[:-1])
        if not says_itself and not issubclass(kind, type):
            values = {name: _value(kind, name) for name in plain(kind)}
            classes[kind] = _size(kind), select(values)

    def find(holder: object) -> list[str]:
        kind = type(holder)
        if kind is ModuleType and holder in modules:
            return sorted(select(vars(holder)))
        size, names = classes.get(kind, (-1, ()))
        if size != _size(kind):
            return plain(holder)
        return sorted({*names, *select(getattr(holder, "__dict__", {}))})

    vars(sys.modules[user])["dir"] = find


def _value(kind: type, name: str) -> object:
    try:
        return getattr(kind, name, None)
    except Exception:  # noqa: BLE001 (pytest leaves out what cannot be had, too)
        return None


def _size(kind: type) -> int:
    return sum(len(vars(base)) for base in kind.__mro__)


def _keep_names(path: Sequence[str]) -> None:
    """Keep which distributions the folders of ``path`` have, and not the time of their change."""
    folders: Any = getattr(importlib.metadata, "FastPath", None)
    if isinstance(plain := getattr(folders, "mtime", None), property):
        now = {folder: plain.__get__(folders(folder)) for folder in path}
        folders.mtime = property(
            lambda folder: now[folder.root] if folder.root in now else plain.__get__(folder)
        )


class _Kept:
    """A property of distributions that is worked out once for each, while it ``is_open``."""

    def __init__(self, plain: property) -> None:
        self._plain = plain
        self._values: dict[str, Any] = {}
        self.is_open = True

    def __get__(self, distribution: Any, _owner: object) -> Any:
        place = str(distribution._path)  # noqa: SLF001 (its identity)
        if place in self._values:
            return self._values[place]
        value = self._plain.__get__(distribution)
        if self.is_open:
            self._values[place] = value
        return value


def _keep(name: str) -> _Kept:
    owner = importlib.metadata.PathDistribution
    kept = _Kept(getattr(owner, name))
    setattr(owner, name, kept)
    return kept
