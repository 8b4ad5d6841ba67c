"""What a run reports about itself: snapshots, the difference between two of them, what limited it."""
