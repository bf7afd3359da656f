"""The same tests on several kernels (``--bpf-kernel``): pytest's side, by pytest-xdist."""
