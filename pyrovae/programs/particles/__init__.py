"""K draws of every latent, scored by guide and model."""
