"""Benchmarks: one question per file, each answered by contenders that run in turn."""
