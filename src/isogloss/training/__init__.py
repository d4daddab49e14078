"""Training: the fit loop and the stages on top of it."""
