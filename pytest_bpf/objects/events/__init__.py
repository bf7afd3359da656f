"""Events of ring and perf buffers as typed values."""
