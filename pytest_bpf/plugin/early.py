"""What has to be known before other plugins look, and before conftests are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def look_ahead(config: pytest.Config, *, on_kernels: bool) -> None:
    """Tell plugins that look so early (pytest-cov) that the tests will run in workers."""
    known = config.known_args_namespace
    if on_kernels:
        from pytest_bpf.plugin.matrix import attended

        config.pluginmanager.register(attended, "bpf-attended")
        if getattr(known, "dist", None) == "no" and not attended.here(config):
            known.dist = "load"
    if known.bpf_shell:
        from pytest_bpf.plugin import shell

        config.pluginmanager.register(shell, "bpf-shell")
