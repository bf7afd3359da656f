"""A ring buffer, or a perf buffer for each CPU."""
