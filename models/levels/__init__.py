"""Parts of hierarchical models."""
