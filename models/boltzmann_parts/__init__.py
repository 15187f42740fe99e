"""Parts of Boltzmann machines."""
