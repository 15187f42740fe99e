"""Likelihoods of counts without a largest one, each with an exposure."""
