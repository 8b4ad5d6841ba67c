"""What every floor stands on: errors, checks of arguments, how values and names are shown, frozen values."""
