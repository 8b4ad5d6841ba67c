"""Pipelines you can review, on trio."""
