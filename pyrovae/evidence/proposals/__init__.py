"""Proposals of each datum's own: fitted side by side, then held fixed while draws are counted."""
