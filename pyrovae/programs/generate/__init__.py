"""Data and latents that a program generates."""
