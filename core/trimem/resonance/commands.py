"""``trimem hear``: what was said, found by how it sounds."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from trimem.console import BankOption, JsonOption, NamespaceOption, err, errors_said, out, print_json, quiet


@errors_said
def hear(
    query: Annotated[str, typer.Argument(help="What it sounded like: a name, a quotation, a question.")],
    bank: BankOption,
    namespace: NamespaceOption,
    k: Annotated[int, typer.Option("--k", "-k", help="How many at most.")] = 4,
    as_json: JsonOption = False,
) -> None:
    """Find what was said by its sound, however it was misheard."""
    from trimem.resonance.bank import ResonanceBank
    from trimem.resonance.hits import SoundHit

    quiet()
    with ResonanceBank.open(bank, create=False) as opened:
        hits = [
            hit
            for hit in opened.recall(query, k, namespace=namespace.split("/"), by="sound")
            if isinstance(hit, SoundHit)
        ]
    if as_json:
        print_json([_shown(hit) for hit in hits])
        return
    if not hits:
        err.print(f"[yellow]nothing that sounds like it is remembered under {escape(namespace)}[/]")
    for hit in hits:
        out.print(
            f"[bold]{hit.score:.2f}[/]  z {hit.z:.1f}  {escape(hit.source)}:{hit.slot.line}  [dim]{hit.id}[/]",
            highlight=False,
        )
        out.print(f"      {escape(' '.join(hit.text.split()))}", highlight=False)


def _shown(hit: Any) -> dict[str, Any]:
    return {
        "id": hit.id,
        "score": hit.score,
        "z": hit.z,
        "nats": hit.nats,
        "word": hit.word,
        "source": hit.source,
        "line": hit.slot.line,
        "text": hit.text,
        "metadata": dict(hit.metadata),
    }
