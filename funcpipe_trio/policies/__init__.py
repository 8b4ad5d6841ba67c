"""Policies: frozen values that check themselves when they are made, and decide nothing at run time."""
