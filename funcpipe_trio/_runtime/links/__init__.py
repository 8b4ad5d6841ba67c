"""What is between two stages: the buffer of a link, one that drops, one that is fair by key, the sink at the end."""
