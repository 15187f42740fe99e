"""Objectives as compiled graphs, one for each kind of arguments, held against eager ones."""
