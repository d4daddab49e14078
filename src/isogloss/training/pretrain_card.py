"""The model card of a pre-trained backbone."""

from collections.abc import Mapping
from typing import Any

from isogloss.languages import resolve
from isogloss.training.recipe import Recipe


def model_card(recipe: Recipe, facts: Mapping[str, Any]) -> str:
    """Returns Markdown with YAML front matter: what it is, its data and licences, steps, scores, losses by language.

    Args:
        recipe: It was trained by.
        facts: Content of its `isogloss.json`; `scores`, where there are any, is a list of `{task, metric, score, command}`,
            and `notes` one of sentences that a reader of the table of losses should know.
    """
    languages = [resolve(code) for code in recipe.codes]
    front = [
        "---",
        "library_name: isogloss",
        "language:",
        *(f"- {item.iso639_1 or item.iso639_3}" for item in languages),
        "---",
    ]
    objectives = ", ".join(
        f"{item.name} ({item.weight:g}{', parallel text' if item.text == 'parallel' else ''})"
        for item in recipe.objectives
    )
    stages = "; ".join(f"{stage.steps} steps of {stage.batch} x {stage.length} tokens" for stage in recipe.stages)
    if recipe.accumulation > 1:
        stages += f"; {recipe.accumulation} such batches a step"
    start = f"continued from `{recipe.start_from}`" if recipe.start_from else f"first embeddings: {recipe.embeddings}"
    losses = facts["validation_loss"]
    rows = [
        f"| {item.name} | `{item.code}` | {facts['text_tokens'].get(item.code, 0):,} | {losses.get(item.code, float('nan')):.3f} |"
        for item in languages
    ]
    scores = [
        f"| {row['task']} | {row['metric']} | {row['score']} | `{row['command']}` |" for row in facts.get("scores", ())
    ]
    sources = [f"* {line}" for line in recipe.sources] or ["* not stated"]
    return "\n".join(
        [
            *front,
            "",
            f"# {recipe.name}",
            "",
            f"A small multilingual {recipe.kind} trained by `isogloss pretrain` from the recipe below. It exists so that isogloss can be",
            "tried and tested without a network; it is not a substitute for a large model.",
            "",
            f"* Parameters: {facts['parameters']:,}; vocabulary: {facts['vocabulary']:,}",
            f"* Steps: {facts['steps']:,} ({stages}); tokens seen: {facts['tokens_seen']:,}; {facts['seconds'] / 60:.0f} minutes",
            f"* Objectives (weight): {objectives}; {start}",
            *([f"* Prompt pool, trained with it: `{facts['pool']}`"] if facts.get("pool") else []),
            f"* Final training loss (mean over objectives): {facts['final_loss']}; finished {facts['finished']}",
            "",
            "## Text and licences",
            "",
            *sources,
            "",
            f"Licence of the weights: {recipe.licence}.",
            "",
            *(
                ["## Scores", "", "| task | metric | score | command |", "|---|---|---|---|", *scores, ""]
                if scores
                else []
            ),
            "## Languages",
            "",
            "| language | code | tokens of text | validation loss |",
            "|---|---|---|---|",
            *rows,
            "",
            *(line for note in facts.get("notes", ()) for line in (note, "")),
        ]
    )
