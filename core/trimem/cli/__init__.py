"""The ``trimem`` command.

Exit codes: 0 done, 1 an error (said on stderr, with what to do), 2 wrong usage. ``remember`` and ``sync`` also
exit with 1 when a file that should have been readable was not; everything else is stored then.
"""

from __future__ import annotations

import typer

from trimem.bench.commands import bench
from trimem.cli.memory import ask, forget, recall, remember, stats
from trimem.cli.moving import export, import_, recompile
from trimem.cli.sync import sync
from trimem.cli.trying import advise, calibrate, demo
from trimem.cli.upkeep import compact, evict, repair, verify
from trimem.resonance.commands import hear
from trimem.server.command import serve
from trimem.transit.commands import transit

app = typer.Typer(
    name="trimem", help="Memory that language models can really use.", no_args_is_help=True, add_completion=False
)

MEMORY, UPKEEP, TRYING = "Remember, find, forget", "Look after a bank", "Try and measure"

for panel, commands in {
    MEMORY: (remember, recall, ask, hear, forget, stats, sync, serve),
    UPKEEP: (verify, repair, compact, evict, export, import_, recompile),
    TRYING: (demo, advise, calibrate),
}.items():
    for command in commands:
        app.command(command.__name__.rstrip("_"), rich_help_panel=panel)(command)
app.add_typer(bench, rich_help_panel=TRYING)
app.add_typer(transit, rich_help_panel=TRYING)
