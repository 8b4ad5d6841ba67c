"""What every layer builds on: errors, argument checks, how values and names are shown, frozen values."""
