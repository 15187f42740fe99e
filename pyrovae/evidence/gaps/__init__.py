"""Loss of the ELBO in nats, by guides fitted to each datum."""
