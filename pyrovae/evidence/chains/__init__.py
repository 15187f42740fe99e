"""Markov chains along a path of densities, and the pilot runs that tune them."""
