"""Pure state machines: told what happened (and the time, where it matters), they answer what comes next."""
