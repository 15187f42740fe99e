"""Options of the command line, and the objects that they name."""
