"""Where sync functions run: threads, worker processes, executors."""
