"""Complete generative models, each one file: a Pyro model and its guide."""
