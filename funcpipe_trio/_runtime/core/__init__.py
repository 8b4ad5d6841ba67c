"""What everything stands on: what parts see of each other, values on their way, failures, the books, waiting."""
