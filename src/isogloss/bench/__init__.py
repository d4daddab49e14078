"""Speed and memory of isogloss beside other ways of doing the same thing; `isogloss bench` prints it."""

from isogloss.bench.result import Options, Result, Table
from isogloss.bench.run import MEASUREMENTS, run

__all__ = ["MEASUREMENTS", "Options", "Result", "Table", "run"]
