"""Stages with places: calls, calls by key, streams within a stream, runs within a run."""
