"""Models composed for a data set: networks, likelihood, guide and prior that fit each other."""
