"""Tables: what their columns are, their units, and what of them is missing."""
