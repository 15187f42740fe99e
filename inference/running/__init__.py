"""How a script runs: in one process or several, with its files, tables and pictures."""
