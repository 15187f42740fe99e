"""Latents of a program as flat vectors: their layout, densities and families."""
