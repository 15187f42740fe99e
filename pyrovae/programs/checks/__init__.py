"""Checks of a program: each breach of the contract has one clear error."""
