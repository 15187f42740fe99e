"""Idioms of Pyro brought to one form: plates, conditioning, autoguides, folded samples."""
