"""Several streams as one, and one as several."""
