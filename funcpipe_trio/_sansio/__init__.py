"""Pure state machines: they are told what happened (and the time, where it matters) and return what comes next."""
