"""Sixteen languages in one batch or one by one: `isogloss bench routing`, with its options."""

import sys

from isogloss.cli.app import run

if __name__ == "__main__":
    sys.exit(run(["bench", "routing", *sys.argv[1:]]))
