"""What all others use: protocols between the parts, signals, failures, the ledger, how a task parks and waits."""
