"""Likelihoods of rows of a table: own units, missing values, columns of several kinds."""
