"""Pictures of free energies, work, the Ising torus and diffusions."""
