"""Tasks that drive a chain: plain ones, those with a clock, sources."""
