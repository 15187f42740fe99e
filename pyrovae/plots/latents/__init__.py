"""Pictures of latent spaces and of what a model generates."""
