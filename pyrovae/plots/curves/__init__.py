"""Curves over training."""
