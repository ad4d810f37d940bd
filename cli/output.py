"""What the command says: results on standard output, as a table or as JSON; everything else on standard error."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Json = Annotated[
    bool, typer.Option("--json", help="JSON on standard output, with the same keys in every release.")
]


def show(result: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, as_json: bool, title: str = "") -> None:
    """Print one thing, or a list of things with the same keys.

    JSON is one document; a table has a row per key of one thing, or a row per thing of a list.
    """
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=False, default=str) + "\n")
        return
    table = Table(title=title or None, title_justify="left", show_header=not isinstance(result, Mapping))
    if isinstance(result, Mapping):
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for key, value in result.items():
            table.add_row(_label(key), _cell(value))
    elif result:
        for key in result[0]:
            table.add_column(_label(key), overflow="fold")
        for row in result:
            table.add_row(*map(_cell, row.values()))
    else:
        err.print("There are none.")
        return
    if not out.is_terminal:
        out.width = 250  # a pipe has no width to fit into, and a value cut short helps nobody
    out.print(table)


def tell(message: str) -> None:
    """Say something to the person at the terminal."""
    err.print(message, markup=False, soft_wrap=True)


def warn(title: str, detail: str) -> None:
    """A problem as one line: what kind of thing it is, then what to do."""
    err.print(Text.assemble((title, "bold red"), f": {detail}"), soft_wrap=True)


def _label(key: str) -> str:
    return key.replace("_", " ")


def _cell(value: Any) -> Text:
    if isinstance(value, Mapping):
        value = "\n".join(f"{name} → {each}" for name, each in value.items())
    elif isinstance(value, list | tuple):
        value = "\n".join(map(str, value))
    return Text("–" if value is None else str(value))
