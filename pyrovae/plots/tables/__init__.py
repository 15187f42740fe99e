"""Figures of tables: scores of rows, imputed values against true ones."""
