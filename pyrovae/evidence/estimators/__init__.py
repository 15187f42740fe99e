"""Estimators of ln p(x), one file each."""
