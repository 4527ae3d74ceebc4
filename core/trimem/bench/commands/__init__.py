"""``trimem bench``: the commands that print every number of the documentation."""

from __future__ import annotations

import typer

from trimem.bench.commands.reading import explicit, follow_ups, hops, needle, selection, serving
from trimem.bench.commands.resonance import resonance
from trimem.bench.commands.search import recall
from trimem.bench.commands.store import crash, store
from trimem.bench.commands.transit import transit

bench = typer.Typer(name="bench", help="Measure trimem against its peers.", no_args_is_help=True)
for command in (explicit, needle, hops, follow_ups, selection, recall, resonance, serving, transit, crash, store):
    bench.command(command.__name__.replace("_", "-"))(command)
