"""An invented study, to look at its report: no number in it was measured.

python tools/report_example.py OUT                    # seven cells, three tasks, one source
python tools/report_example.py OUT --study freezing   # or: sources
"""

import argparse
from pathlib import Path

import numpy as np

from isogloss.languages import distances
from isogloss.report.study_data import (
    GateTable,
    LearningCurve,
    PoolAttention,
    PublishedScore,
    StudyData,
    StudyScore,
)
from isogloss.report.study_page import write_study_report

LANGUAGES = (
    "eng_Latn", "deu_Latn", "fra_Latn", "spa_Latn", "rus_Cyrl", "bul_Cyrl", "ces_Latn", "slk_Latn", "slv_Latn",
    "ell_Grek", "tur_Latn", "arb_Arab", "urd_Arab", "hin_Deva", "swh_Latn", "zho_Hans",
)  # fmt: skip
SHARES = dict(zip(LANGUAGES, (0.49, 0.054, 0.047, 0.053, 0.09, 0.0059, 0.004, 0.0007, 0.0004, 0.0175, 0.0076, 0.0075, 0.0008, 0.002, 0.0005, 0.08), strict=True))  # fmt: skip
CELLS = {
    "TA": ("adapter:16", 1.0, 894_528, 3_600_000),
    "TP": ("prompt:20", -6.0, 15_360, 64_000),
    "LA+TA": ("adapter:16", 3.0, 894_528, 3_600_000),
    "LP+TA": ("adapter:16", 4.5, 894_528, 3_600_000),
    "LA+TP": ("prompt:20", -5.0, 15_360, 64_000),
    "LP+TP": ("prompt:20", -7.5, 15_360, 64_000),
    "full": ("none", 2.0, 278_000_000, 1_112_000_000),
}


def _distance(source: str, language: str) -> float:
    return distances(source, language)["featural"].value or 0.0


def _parts(kind: str, share: float, hard: np.ndarray, generator: np.random.Generator) -> list[list[float]]:
    """Examples have a difficulty of their own, so that systems agree on many of them."""
    right = generator.random(len(hard)) < np.clip(share + 0.9 * (0.5 - hard), 0.0, 1.0)
    if kind == "accuracy":
        return [[float(item)] for item in right]
    gold = 1 + (np.arange(len(hard)) % 3)
    if kind == "f1":
        hits = np.where(right, gold, 0)
        return [[float(h), float(g), float(g)] for h, g in zip(hits, gold, strict=True)]
    label = np.arange(len(hard)) % 7
    guess = np.where(right, label, generator.integers(0, 7, len(hard)))
    return [[float(g), float(item)] for g, item in zip(guess, label, strict=True)]


def _score(kind: str, parts: list[list[float]]) -> float:
    from isogloss.report.statistics import as_columns, form_of, score

    form = form_of(kind, len(parts[0]))
    assert form is not None
    return float(score(form, as_columns(form, parts, 7).sum(axis=0), float(len(parts))))


def _one(
    task: str, kind: str, factors: dict, source: str, language: str, seed: int, share: float, n: int, effect: float,
    cost: tuple[int, int, float],
) -> StudyScore:  # fmt: skip
    # Languages are harder or easier than their distance says.
    share += float(np.random.default_rng([11, *map(ord, task + language)]).normal(0, 0.04))
    generator = np.random.default_rng([seed, *map(ord, f"{task}{language}{sorted(factors.items())}")])
    hard = np.random.default_rng([7, *map(ord, task)]).random(n)
    parts = _parts(kind, float(np.clip(share + effect, 0.02, 0.98)), hard, generator)
    step = f"{abs(hash((task, str(factors), source, seed))):016x}"[:16]
    return StudyScore(
        step=f"{step}{step[::-1]}", factors=factors, task=task, source=source, language=language, seed=seed, metric=kind,
        value=_score(kind, parts), n=n, items=[f"{task}-{i}" for i in range(n)], parts=parts, seen=source == language,
        trained_parameters=cost[0], stored_bytes=cost[1], seconds=cost[2],
        command=f"isogloss study run example.yaml --set seed={seed}", commit="0123abc",
    )  # fmt: skip


def cells_study(languages: int = 16, examples: int = 204, seeds: int = 3) -> StudyData:
    """Seven cells on three tasks of three metrics, one source, one failed step and one language that a cell lacks."""
    scores = []
    codes = LANGUAGES[:languages]
    for task, kind, base in (("topic", "accuracy", 0.72), ("ner", "f1", 0.6), ("claims", "macro_f1", 0.55)):
        for cell, (module, gain, parameters, stored) in CELLS.items():
            for seed in range(1, seeds + 1):
                noise = np.random.default_rng([seed, *map(ord, task + cell)]).normal(0, 0.012)
                for code in codes:
                    if cell == "LP+TP" and code == "swh_Latn":
                        continue
                    far = _distance("eng_Latn", code) if code != "eng_Latn" else -0.1
                    # Language modules help most where the backbone saw little.
                    help_ = 0.03 * (SHARES[code] < 0.001) * cell.startswith("LP")
                    share = base - 0.45 * far + gain / 100 + noise + help_
                    scores.append(
                        _one(
                            task,
                            kind,
                            {"cell": cell, "task_module": module},
                            "eng_Latn",
                            code,
                            seed,
                            share,
                            examples,
                            0.0,
                            (parameters, stored, 70.0 + 9 * len(cell)),
                        )
                    )
    return StudyData(
        name="Seven cells (invented)",
        description="Which pairing of language part and task part carries a task furthest from English?",
        scores=scores,
        curves=_curves(),
        gates=[_gates()],
        pools=[_pool(codes)],
        published=[
            PublishedScore("topic", "LP+TA", "slk_Latn", "accuracy", 71.3, "mt0-base", "an invented number, Table 0"),
            PublishedScore("topic", "LA+TA", "zero-shot", "accuracy", 66.0, "mt0-base", "an invented number, Table 0"),
            PublishedScore("qa", "LP+TA", "slk_Latn", "em", 40.0, "mt0-base", "an invented number, Table 0"),
        ],
        missing=[("task training LP+TP, claims, seed 3, on swh_Latn", "failed: the loss is not finite at step 120 <nan>")],
        shares={"": {code: SHARES[code] for code in codes}},
        command="isogloss study report example.yaml",
        commit="0123abc",
        groups={"Slavic": ["rus_Cyrl", "bul_Cyrl", "ces_Latn", "slk_Latn", "slv_Latn"]},
        backbones={"bundled:encoder": "05ac4b57dd17b3e4"},
        date="2026-01-02T03:04:05+00:00",
        version="0.1.0",
    )  # fmt: skip


def freezing_study(languages: int = 16, examples: int = 204, seeds: int = 4) -> StudyData:
    """Freezing x length x reparameterisation, one task."""
    scores = []
    codes = LANGUAGES[:languages]
    for frozen in (True, False):
        for length in (5, 10, 20, 50):
            for mlp in (True, False):
                factors = {
                    "task_module": f"prompt:{length}",
                    "freezing": frozen,
                    "length": length,
                    "reparameterisation": mlp,
                }
                for seed in range(seeds):
                    noise = np.random.default_rng([seed, length, frozen, mlp]).normal(0, 0.02)
                    for code in codes:
                        far = _distance("eng_Latn", code) if code != "eng_Latn" else -0.1
                        share = (0.62 - 0.25 * far if frozen else 0.68 - 0.75 * far) - 0.0012 * length + noise
                        scores.append(
                            _one(
                                "topic",
                                "accuracy",
                                factors,
                                "eng_Latn",
                                code,
                                seed,
                                share,
                                examples,
                                0.0,
                                (1024 * length if frozen else 564_000_000, 4096 * length, 40.0 + length),
                            )
                        )
    return StudyData("Freezing (invented)", "Does freezing the backbone weaken the pull of languages near the source?", scores, shares={"": {code: SHARES[code] for code in codes}}, command="isogloss study report example.yaml", commit="0123abc")  # fmt: skip


def sources_study(examples: int = 120, seeds: int = 2) -> StudyData:
    """Six languages as sources and targets, three cells."""
    codes = ("eng_Latn", "deu_Latn", "spa_Latn", "slk_Latn", "ces_Latn", "tel_Telu")
    scores = []
    for source in codes:
        for cell in ("TA", "LA+TA", "LP+TA"):
            for seed in range(seeds):
                for code in codes:
                    far = _distance(source, code)
                    share = 0.75 - 0.5 * far + CELLS[cell][1] / 100 + (0.06 if code == source else 0.0)
                    scores.append(
                        _one(
                            "nli",
                            "accuracy",
                            {"cell": cell},
                            source,
                            code,
                            seed,
                            share,
                            examples,
                            0.0,
                            (1000, 4000, 10.0),
                        )
                    )
    return StudyData("Six sources (invented)", "Which source?", scores, command="isogloss study report s.yaml", commit="0123abc", groups={"low-resource": ["slk", "ces", "tel"]})  # fmt: skip


def _curves() -> list[LearningCurve]:
    steps = list(range(0, 1001, 50))
    found = []
    for number, cell in enumerate(CELLS):
        for seed in (1, 2):
            noise = np.random.default_rng([number, seed]).normal(0, 0.03, len(steps))
            values = [
                1.0 + 1.2 * float(np.exp(-step / (150 + 40 * number))) + float(noise[i]) for i, step in enumerate(steps)
            ]
            found.append(LearningCurve(f"step{number}{seed}", f"{cell}", "training loss", steps, values))
    return found


def _gates() -> GateTable:
    generator = np.random.default_rng(3)
    groups = [f"layer {layer}" for layer in range(12)] + ["head"]
    values = [[float(1 / (1 + np.exp(-(layer - 6) / 3 + step / 4 + generator.normal(0, 0.2)))) for step in range(5)] for layer in range(13)]  # fmt: skip
    return GateTable("gatestep", "X-MAML gates, NLI", groups, values)


def _pool(codes: tuple[str, ...]) -> PoolAttention:
    generator = np.random.default_rng(4)
    raw = np.stack([generator.random(64) ** (6 if code.endswith("Latn") else 9) for code in codes])
    return PoolAttention("poolstep", "pool 64 x 4", codes, (raw / raw.sum(axis=1, keepdims=True)).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--study", choices=["cells", "freezing", "sources"], default="cells")
    options = parser.parse_args()
    makers = {"cells": cells_study, "freezing": freezing_study, "sources": sources_study}
    print(write_study_report(makers[options.study](), options.out, overwrite=True))


if __name__ == "__main__":
    main()
