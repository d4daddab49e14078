"""Tables for papers: LaTeX with the booktabs rules."""

from collections.abc import Sequence

from isogloss.report.tables import Table, Value, show, show_interval

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "–": "--", "—": "---", "±": r"$\pm$", "−": r"$-$", "×": r"$\times$", "→": r"$\to$",
    "≥": r"$\ge$", "≤": r"$\le$", "’": "'", "‘": "`", "…": r"\dots{}",
}  # fmt: skip


def to_latex(table: Table) -> str:
    r"""A `table` environment; needs `\usepackage{booktabs}`.

    Notes and origin stand above it as comments, so that a number in a paper can be followed home from its source file.
    """
    lines = [f"% {' '.join(table.title.split())}"]
    lines += [f"% {' '.join(note.split())}" for note in table.notes]
    if table.trace:
        lines += [f"% {name}: {' '.join(value.split())}" for name, value in table.trace.facts()]
    shape = "".join("r" if column.numeric else "l" for column in table.columns)
    lines += [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{escape(table.title)}}}",
        rf"\begin{{tabular}}{{{shape}}}",
        r"\toprule",
        " & ".join(escape(column.name) for column in table.columns) + r" \\",
        r"\midrule",
        *(_row(table, row) for row in table.rows),
    ]
    if table.footer:
        lines += [r"\midrule", *(_row(table, row) for row in table.footer)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _row(table: Table, row: Sequence[Value]) -> str:
    cells = []
    for value, column in zip(row, table.columns, strict=True):
        interval = show_interval(value, column.digits)
        cells.append(escape(show(value, column.digits)) + (rf" {{\scriptsize {escape(interval)}}}" if interval else ""))
    # A row that began with a bracket would be read as the argument of the line break before it.
    return ("{}" if cells and cells[0].startswith("[") else "") + " & ".join(cells) + r" \\"


def escape(text: str) -> str:
    """Text with everything that LaTeX would act upon made plain."""
    return "".join(_SPECIAL.get(sign, sign) for sign in " ".join(text.split()))
