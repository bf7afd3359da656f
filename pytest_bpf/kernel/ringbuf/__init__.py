"""Ring and perf buffers, read straight from shared memory."""
