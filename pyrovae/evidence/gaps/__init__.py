"""Where the ELBO loses its nats: guides fitted to each datum."""
