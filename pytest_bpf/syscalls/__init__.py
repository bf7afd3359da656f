"""Loops of system calls: exact numbers of each, in threads, on chosen CPUs, in a place."""

from pytest_bpf.syscalls.syscalls import SyscallResult, Syscalls

__all__ = ["SyscallResult", "Syscalls"]
