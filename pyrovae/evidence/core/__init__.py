"""Log-weights, and how they become an estimate."""
