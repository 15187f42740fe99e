"""Bounds on ln p(x) from both sides, on data simulated from the model."""
