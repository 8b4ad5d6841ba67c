"""Stages with places: calls, calls by key, streams within the stream, runs within the run."""
