"""How much of each language the backbones of a study were trained on: as the study file says, else as their cards do."""

from collections.abc import Mapping
from contextlib import suppress

from isogloss.errors import IsoglossError
from isogloss.study import sources
from isogloss.study.grid import language_codes
from isogloss.study.reading import Marks
from isogloss.study.spec import Study
from isogloss.study.steps import Plan

Shares = dict[str, float | None]
_ROUNDING = 1.01  # Shares that are rounded may sum to a little more than 1.


def given_shares(study: Study, marks: Marks) -> dict[str, Shares]:
    """Shares by backbone and language code as a study file gives them; None for a language that is only named.

    Raises:
        IsoglossError: A language is unknown, stands there twice, or the shares of a backbone sum to more than 1.
    """
    found: dict[str, Shares] = {}
    for backbone, given in study.shares.items():
        path = ("shares", backbone)
        if not isinstance(given, Mapping):
            found[backbone] = dict.fromkeys(language_codes(given, study, path, marks))
            continue
        shares: Shares = {}
        for name, share in given.items():
            for code in language_codes([name], study, (*path, name), marks):
                if code in shares:
                    raise IsoglossError(f"{marks.at((*path, name))} gives {code} a share twice; keep one of them.")
                shares[code] = share
        total = sum(share for share in shares.values() if share is not None)
        if total > _ROUNDING:
            raise IsoglossError(
                f"{marks.at(path)} gives shares of '{backbone}' that sum to {total:.3g}; give parts of 1, not of 100."
            )
        found[backbone] = shares
    return found


def known_shares(plan: Plan) -> dict[str, Shares]:
    """Shares by backbone and language code, of those backbones of a plan that they are known for."""
    given: Mapping[str, Shares] = plan.options.get("shares") or {}
    found: dict[str, Shares] = {}
    for name in dict.fromkeys(str(step.inputs["backbone"]) for step in plan.steps.values()):
        if name in given:
            found[name] = dict(given[name])
            continue
        with suppress(IsoglossError):
            tokens = sources.backbone_card(name).get("text_tokens", {})
            if total := sum(tokens.values()):
                found[name] = {code: count / total for code, count in tokens.items()}
    return found
