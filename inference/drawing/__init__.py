"""Pictures of a trained program: of draws, of latents, of a diffusion, of a Boltzmann machine."""
