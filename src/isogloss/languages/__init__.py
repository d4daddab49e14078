"""Languages: codes, names, scripts, families and how far apart they are.

A language is written `slk_Latn` inside isogloss: ISO 639-3 code and ISO 15924 script. At the edge
`resolve` takes what people and data sets write (`sk`, `Slovak`, `slk_Latn`, `pt-BR`, `de_gsd`).
Importing this package reads no data; the table is read at the first question.
"""

from isogloss.languages._distance import (
    DISTANCE_KINDS,
    Distance,
    DistanceKind,
    distance,
    distances,
    nearest,
)
from isogloss.languages._language import Language
from isogloss.languages._pattern import fill_pattern
from isogloss.languages._resolve import all_languages, resolve, resolve_folders, scripts

__all__ = [
    "DISTANCE_KINDS",
    "Distance",
    "DistanceKind",
    "Language",
    "all_languages",
    "distance",
    "distances",
    "fill_pattern",
    "nearest",
    "resolve",
    "resolve_folders",
    "scripts",
]
