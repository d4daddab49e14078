"""`--help` of a command with many options: plain text like everywhere, under headings."""

from typing import Any

from typer.core import TyperCommand

from isogloss.cli._options import PANELS


class Grouped(TyperCommand):
    """Lists options by their `rich_help_panel`, in the order of `PANELS`.

    Typer itself does so only with rich markup, which frames the text and takes `[...]` in help for tags.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the options of each group; arguments, `--help` and what has no group stand last."""
        groups: dict[str, list[tuple[str, str]]] = {panel: [] for panel in PANELS}
        rest: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            panel = getattr(parameter, "rich_help_panel", None)
            if record is not None:
                groups.get(panel or "", rest).append(record)
        for name, records in [*groups.items(), ("Other", rest)]:
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)
