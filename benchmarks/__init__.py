"""Benchmarks: ours and the peers side by side, on the same arrays, in one process."""
