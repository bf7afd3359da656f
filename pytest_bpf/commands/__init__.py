"""What ``pytest-bpf`` does outside of a test: ``init``, ``new`` and ``doctor``."""
