"""The data and context that a program takes: what is per datum, and what is shared."""
