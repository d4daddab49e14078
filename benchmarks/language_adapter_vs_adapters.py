"""A language adapter, with the `adapters` library beside it: `isogloss bench adapter`, with its options."""

import sys

from isogloss.cli.app import run

if __name__ == "__main__":
    sys.exit(run(["bench", "adapter", *sys.argv[1:]]))
