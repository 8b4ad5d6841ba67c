"""Showing a run while it is at work: in a terminal, in a browser, and as metrics. It reads runs, and changes none."""
