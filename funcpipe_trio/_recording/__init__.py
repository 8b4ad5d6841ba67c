"""What was recorded of a run, and what would have been under other settings: recorder, recording, simulation."""
