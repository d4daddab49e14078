"""Speed and peak memory of a soft prompt: `isogloss bench prompt memory`, with its options."""

import sys

from isogloss.cli.app import run

if __name__ == "__main__":
    sys.exit(run(["bench", "prompt", "memory", *sys.argv[1:]]))
