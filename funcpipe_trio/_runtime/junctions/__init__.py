"""Several streams as one (fan-ins), and one as several (fan-outs)."""
