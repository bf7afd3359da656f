"""Cgroups (v2): a private one for each test, for programs that attach to one."""

from pytest_bpf.cgroup.cgroup import Cgroup

__all__ = ["Cgroup"]
