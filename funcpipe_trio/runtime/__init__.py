"""Where waiting happens: links, stages, workers, fan-ins, the run and its report."""
