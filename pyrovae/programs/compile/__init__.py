"""Programs traced into graphs and compiled."""
