"""Test eBPF programs as easily as Python functions."""

__version__ = "0.1.0"
