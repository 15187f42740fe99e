"""Diagnostics of importance weights, and the errors that they leave."""
