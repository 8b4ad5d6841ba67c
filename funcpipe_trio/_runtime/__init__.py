"""Where waiting happens: links, stages, sources, pools, fan-ins and fan-outs, policies at work, the run, its report."""
