"""The fair merge for any trio program: a channel with inputs, groups and weights."""
