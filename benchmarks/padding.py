"""What padding costs: `isogloss bench padding`, with its options."""

import sys

from isogloss.cli.app import run

if __name__ == "__main__":
    sys.exit(run(["bench", "padding", *sys.argv[1:]]))
