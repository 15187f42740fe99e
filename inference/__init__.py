"""Scripts that run inference: train, evaluate, compare, sample."""
