"""Effect handlers for Pyro programs."""
