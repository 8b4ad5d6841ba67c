"""One call and its policies at work: timeouts, retries, limits, circuits, contexts."""
