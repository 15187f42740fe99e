"""`python -m pyrovae`: the command `pyrovae`, where that is not on the path."""

import sys

from pyrovae.inference.cli import main

if __name__ == "__main__":
    sys.exit(main())
