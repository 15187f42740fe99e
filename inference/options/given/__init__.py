"""Building of models that take more than x: labels or columns that are given, labels partly known, lengths."""
