"""Stacks: ordered modules on one backbone; one forward for training, scoring and generation."""

from isogloss.stack.bank import Bank
from isogloss.stack.batch import StackOutput, TextBatch
from isogloss.stack.notation import Term, format_notation, parse_notation
from isogloss.stack.stack import Stack

__all__ = ["Bank", "Stack", "StackOutput", "Term", "TextBatch", "format_notation", "parse_notation"]
