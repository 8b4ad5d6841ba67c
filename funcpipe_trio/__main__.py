"""``python -m funcpipe_trio``: the same as the command `funcpipe`."""

import sys

from ._cli.main import main

if __name__ == "__main__":
    sys.exit(main())
