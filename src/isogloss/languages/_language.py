"""The value that stands for a language everywhere in isogloss."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """A language written in one script.

    Attributes:
        code: What isogloss writes everywhere, `slk_Latn`. The first part is the ISO 639-3 code, but
            `zho` for Mandarin (`cmn`), as FLORES-200 writes it.
        iso639_3: ISO 639-3 code, `cmn` for `zho_Hans`.
        script: ISO 15924 code, `Latn`.
        name: English name.
        iso639_1: Two-letter code, or None.
        family: Top-level family of Glottolog as carried by URIEL; empty for an isolate or where unknown.
        branch: The next group below the family; empty where there is none.
    """

    code: str
    iso639_3: str
    script: str
    name: str
    iso639_1: str | None
    family: str
    branch: str = ""

    def __str__(self) -> str:
        return self.code
