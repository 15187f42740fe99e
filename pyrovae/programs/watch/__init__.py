"""Assumptions of a traced program about Python's state, and whether they still hold."""
