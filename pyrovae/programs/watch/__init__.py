"""What a traced program assumes of Python's state, and whether that still holds."""
