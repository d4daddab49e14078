"""The exception that a user of isogloss is meant to see."""


class IsoglossError(Exception):
    """A problem that the user can fix.

    The message is one sentence: which argument, file or line; what was expected; how to fix it.
    The command line prints it without a traceback and exits with status 2.
    """


class DivergedError(IsoglossError):
    """A training's loss is no number any more."""
