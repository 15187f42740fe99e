"""What is logged of a fit."""
