"""One call and its policies at run time: timeouts, retries, limits, circuits, contexts."""
