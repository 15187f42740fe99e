"""The two-dimensional Ising model on a torus: exact laws, exact draws, and what is measured on them."""
