"""Integrals over one or two dims, with an error that knows what was not visited."""
