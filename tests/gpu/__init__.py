"""What a GPU has to show, by one command: `make gpu`."""
