"""Studies: estimators against exact evidence, and models of the Ising torus."""
