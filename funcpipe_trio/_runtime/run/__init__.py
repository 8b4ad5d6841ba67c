"""The run: how it is built, opened, driven, set, counted and ended."""
