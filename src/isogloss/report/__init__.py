"""Reports: tables, figures, intervals, and one self-contained HTML page that a person reads."""

from isogloss.report.drawing import Figure
from isogloss.report.figures import Series, dot_plot
from isogloss.report.intervals import bootstrap_mean, wilson
from isogloss.report.page import Commands, Details, Facts, Page, Paragraph, Section, render_page, write_page
from isogloss.report.tables import Column, Score, Table, to_csv, to_markdown, to_rich
from isogloss.report.trace import Trace

__all__ = [
    "Column",
    "Commands",
    "Details",
    "Facts",
    "Figure",
    "Page",
    "Paragraph",
    "Score",
    "Section",
    "Series",
    "Table",
    "Trace",
    "bootstrap_mean",
    "dot_plot",
    "render_page",
    "to_csv",
    "to_markdown",
    "to_rich",
    "wilson",
    "write_page",
]
