"""Meta-initialisations, one file each: outer gradients of the weights that a fine-tuning starts from."""

from isogloss.meta.initialisations.auxiliary import auxiliary
from isogloss.meta.initialisations.fomaml import fomaml
from isogloss.meta.initialisations.reptile import reptile
from isogloss.meta.initialisations.xmaml import xmaml

__all__ = ["auxiliary", "fomaml", "reptile", "xmaml"]
