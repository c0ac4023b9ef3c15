"""How the figures are shown: one table, and the same as JSON."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import processor
from bench.figures import Bench, Figure


def machine(bench: Bench) -> dict[str, str]:
    """What the figures were taken on."""
    postgres = bench.place.postgres
    return {
        "processor": f"{os.cpu_count()} cores, {processor.model()}",
        "load at the end": " ".join(f"{each:.1f}" for each in os.getloadavg()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgres": postgres.version if postgres is not None else "not used",
    }


def write_json(bench: Bench, path: Path, notes: dict[str, str]) -> None:
    """Everything, for programs."""
    told: dict[str, Any] = {
        "scale": bench.scale.name,
        "machine": machine(bench),
        "notes": notes,
        "figures": [each.__dict__ for each in bench.figures],
        "left_out": bench.left_out,
    }
    path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def show(bench: Bench, console: Console, notes: dict[str, str]) -> None:
    """Everything, for people."""
    table = Table(title=f"The store, measured ({bench.scale.name})", show_lines=False)
    for name in ("group", "case", "what"):
        table.add_column(name)
    table.add_column("figure", justify="right")
    table.add_column("unit")
    table.add_column("ratio", justify="right")
    before = ""
    for row in _rows(bench.figures):
        first = row[0]
        if before and first.group != before:
            table.add_section()
        about, comma, _ = first.what.rpartition(", ")
        names = " / ".join(each.what.rpartition(", ")[2] for each in row)
        values = " / ".join(number(each.value) for each in row)
        table.add_row(first.group, first.case, f"{about}{comma}{names}", values, first.unit, _ratio(first))
        before = first.group
    console.print(table)
    for group, note in notes.items():
        console.print(f"{group}: {note}", highlight=False)
    for sentence in bench.left_out:
        console.print(f"Left out: {sentence}", highlight=False)
    told = "; ".join(f"{name}: {value}" for name, value in machine(bench).items())
    console.print(f"Taken on: {told}.", highlight=False)


def _rows(figures: list[Figure]) -> list[list[Figure]]:
    """Those that follow each other and are of one thing, such as its median and its worst, are one row."""

    def thing(figure: Figure) -> tuple[str, ...]:
        about, comma, _ = figure.what.rpartition(", ")
        return figure.group, figure.case, figure.unit, about if comma else f"{figure.what}, alone"

    rows: list[list[Figure]] = []
    for each in figures:
        if rows and thing(rows[-1][0]) == thing(each):
            rows[-1].append(each)
        else:
            rows.append([each])
    return rows


def number(value: float) -> str:
    """With three digits that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(figure: Figure) -> str:
    return "" if figure.ratio is None else f"{figure.ratio:.2f} x {figure.to}"
