"""Pictures of an evidence: bounds, weights, and the data known worst."""
