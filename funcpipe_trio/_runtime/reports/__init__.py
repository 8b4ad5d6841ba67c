"""What a run says of itself: values, what happened between two of them, what limited it."""
