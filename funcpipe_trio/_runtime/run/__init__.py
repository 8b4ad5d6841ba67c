"""The run: how it is built, opened, driven, changed, counted and ended."""
