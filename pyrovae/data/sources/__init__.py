"""Sources of data: named data sets, simulations and the user's own arrays."""
