"""Context that programs take beside x, and new rows brought into the form of the data that a program was trained on."""
