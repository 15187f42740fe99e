"""Batches: which data a step sees, and how they get there."""
