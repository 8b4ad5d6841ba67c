"""Helpers to test pipelines, and what is built on them, in virtual time."""

from ._virtual import run_virtual as run_virtual

__all__ = ["run_virtual"]
