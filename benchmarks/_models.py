"""Models and batches of the scripts here: those of `isogloss bench`."""

from isogloss.bench.shapes import as_backbone, padded, sentences

__all__ = ["as_backbone", "padded", "sentences"]
