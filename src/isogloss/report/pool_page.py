"""The page of one prompt pool: who uses which prompts, and who shares them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from isogloss.languages import resolve
from isogloss.report.page import Facts, Page, Section
from isogloss.report.pool_clusters import agreement_table, attention_map, cluster_languages, dendrogram
from isogloss.report.study_data import PoolAttention
from isogloss.report.tables import Column, Table, Value
from isogloss.report.trace import Trace


def usage_table(usage: Mapping[str, Any]) -> Table:
    """One row a language: how many keys it uses, how sure single texts are, and its first keys.

    Args:
        usage: What `PoolUsage.to_json` returns.
    """
    rows: list[Sequence[Value]] = []
    for code, found in usage["languages"].items():
        shares = found["attention"]
        top = sorted(range(len(shares)), key=lambda key: -shares[key])[:3]
        rows.append(
            [
                resolve(code).name,
                code,
                int(found["texts"]),
                float(found["effective_keys"]),
                math.exp(found["entropy"]),
                ", ".join(f"{key} ({100 * shares[key]:.0f} %)" for key in top),
            ]
        )
    return Table(
        "Use of the pool by language",
        [
            Column("language"),
            Column("code"),
            Column("texts", numeric=True),
            Column("keys used", numeric=True, note="exp of the entropy of the mean attention"),
            Column("by one text", numeric=True, note="exp of the mean entropy of single texts"),
            Column("first keys"),
        ],
        rows,
        notes=[f"{len(usage['dead'])} of {usage['keys']} keys are dead: below 1 % of an even share in every language."],
    )


def pool_page(usage: Mapping[str, Any], pool: PoolAttention, facts: Sequence[tuple[str, str]], trace: Trace) -> Page:
    """The page.

    Args:
        usage: What `PoolUsage.to_json` returns.
        pool: The same attention as a record.
        facts: What the pool is: spec, backbone, text.
        trace: Where the numbers come from.
    """
    clusters = cluster_languages(pool)
    blocks: list[Any] = [agreement_table(clusters)]
    if len(clusters.languages) > 1:
        blocks.insert(0, dendrogram("tree", pool, clusters))
    return Page(
        f"Prompt pool: {pool.label}",
        [
            f"{len(pool.languages)} languages over {usage['keys']} keys, {len(usage['dead'])} of them dead.",
            "Languages that share prompts stand together in the tree; family and script are marked beside them.",
        ],
        [
            Section("The pool", [Facts(facts)]),
            Section("Languages that share prompts", blocks),
            Section("Attention", [attention_map("attention", pool, clusters), usage_table(usage)]),
        ],
        trace,
    )
