"""Which kernels there are, and where they come from."""
