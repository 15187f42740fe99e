"""Where data come from: named data sets, simulations and the user's own arrays."""
