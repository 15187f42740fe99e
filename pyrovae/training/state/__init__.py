"""The state of a fit: checkpoints, and what a run must share to continue one."""
