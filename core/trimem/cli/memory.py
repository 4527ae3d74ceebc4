"""What is done with memory: remember, recall, ask, forget, and count what is there."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from trimem.checks import as_namespace
from trimem.cli.banks import CodecOption, MechanismOption, open_bank, open_to_ask
from trimem.console import (
    BankOption,
    EncoderOption,
    JsonOption,
    LargestOption,
    MaxSlotsOption,
    MinTrustOption,
    ModelOption,
    NamespaceOption,
    as_bytes,
    duration,
    err,
    errors_said,
    out,
    print_json,
    print_unread,
)
from trimem.errors import InvalidInputError
from trimem.types import Answer, Citation, Hit

WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where", metavar="KEY=VALUE", help="Only slots with this metadata; also KEY>=VALUE, >, <= and <; repeatable."
    ),
]

_COMPARISONS = {">=": "$gte", "<=": "$lte", ">": "$gt", "<": "$lt"}
_CONDITION = re.compile(r"([^=<>]+)(>=|<=|=|>|<)(.*)", re.DOTALL)


@errors_said
def remember(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders: Markdown, text, HTML, PDF.")],
    bank: BankOption,
    namespace: NamespaceOption,
    max_mb: LargestOption = 16,
    ttl: Annotated[str | None, typer.Option("--ttl", help="How long to hold them, as 30d, 12h, 45m or 90s.")] = None,
    trust: Annotated[float | None, typer.Option("--trust", help="How far to trust them, from 0 to 1.")] = None,
    provenance: Annotated[str | None, typer.Option("--provenance", help="Who or what they are from.")] = None,
    max_slots: MaxSlotsOption = None,
    model: ModelOption = None,
    mechanism: MechanismOption = None,
    codec: CodecOption = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compile documents; unchanged files are skipped, changed ones replace what they were."""
    from trimem.text.readers import SourceText, read_paths

    path = as_namespace(namespace.split("/"))
    held = duration(ttl)
    files = list(read_paths(paths, max_bytes=as_bytes(max_mb)))
    texts = [file for file in files if isinstance(file, SourceText)]
    unread = [file for file in files if not isinstance(file, SourceText)]
    with open_bank(
        bank, model, create=True, mechanism=mechanism, max_slots=max_slots, codec=codec, encoder=encoder
    ) as opened:
        before = opened.stats(namespace=path)
        if texts:
            opened.remember(
                [file.text for file in texts],
                namespace=path,
                metadata=[{"source": file.source} for file in texts],
                ids=[file.source for file in texts],
                ttl=held,
                provenance=provenance,
                trust=trust,
            )
        after = opened.stats(namespace=path)
    if as_json:
        print_json(
            {
                "files": len(texts),
                "slots": after.slots,
                "new_slots": after.slots - before.slots,
                "tensor_bytes": after.tensor_bytes,
                "unread": [asdict(file) for file in unread],
            }
        )
    else:
        out.print(
            f"{len(texts):,} files read; {after.slots:,} references under {escape(namespace)} "
            f"({after.slots - before.slots:+,}), {_megabytes(after.tensor_bytes)}",
            highlight=False,
        )
        print_unread(unread)
    if any(file.unexpected for file in unread) or not texts:
        if not texts:
            err.print(f"[red]there is nothing to read in {escape(', '.join(map(str, paths)))}[/]")
        raise typer.Exit(1)


@errors_said
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    bank: BankOption,
    namespace: NamespaceOption,
    k: Annotated[int, typer.Option("--k", "-k", help="References to read.")] = 5,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="Longest answer, in tokens.")] = 128,
    where: WhereOption = None,
    min_trust: MinTrustOption = 0.0,
    read: Annotated[
        str | None,
        typer.Option("--read", help="dense: all as text would be read, the default; mixed: more of what is sure."),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Mark what each sentence is from, and quote it.")] = False,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question from memory, without reading the documents again.

    --read and --explain are of explicit memory.
    """
    from trimem.explicit.bank import ExplicitBank

    with open_to_ask(bank, model, encoder) as opened:
        options: dict[str, Any] = {
            "namespace": namespace.split("/"),
            "k": k,
            "where": _where(where),
            "min_trust": min_trust,
            "max_new_tokens": max_new_tokens,
        }
        if isinstance(opened, ExplicitBank):
            stream = opened.ask(question, **options, read=read or "dense", stream=True)
            if not as_json and not explain:
                for piece in stream:
                    out.print(piece, end="", markup=False, highlight=False)
                out.print()
            answer = stream.answer
        elif read is not None or explain:
            raise InvalidInputError(f"--read and --explain are of explicit memory, and {bank} holds resonance memory")
        else:
            answer = opened.ask(question, **options)
            if not as_json:
                out.print(answer.text, markup=False, highlight=False)
    if as_json:
        print_json(
            {
                "text": answer.text,
                "hits": [_hit(hit) for hit in answer.hits],
                "citations": [_citation(citation) for citation in answer.citations],
                "timings": asdict(answer.timings),
                "prompt_tokens": answer.prompt_tokens,
                "memory_tokens": answer.memory_tokens,
                "new_tokens": answer.new_tokens,
            }
        )
        return
    if not answer.hits:
        err.print(f"[yellow]{_nothing(namespace, where, min_trust)}: the model answered by itself[/]")
    if explain:
        _explain(answer)
    for hit in () if explain else sorted(answer.hits, key=lambda hit: -(hit.attention or 0.0)):
        out.print(f"  {hit.attention or 0.0:4.0%}  {escape(hit.source)}:{hit.slot.line}", highlight=False, style="dim")
    out.print(
        f"  first token {1000 * answer.timings.first_token:,.0f} ms, {answer.prompt_tokens} tokens read, "
        f"{answer.memory_tokens} in memory",
        highlight=False,
        style="dim",
    )


@errors_said
def recall(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    bank: BankOption,
    namespace: NamespaceOption,
    k: Annotated[int, typer.Option("--k", "-k", help="How many at most.")] = 4,
    where: WhereOption = None,
    min_trust: MinTrustOption = 0.0,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find references by words and by meaning."""
    with open_bank(bank, encoder=encoder) as opened:
        hits = opened.recall(query, k, namespace=namespace.split("/"), where=_where(where), min_trust=min_trust)
    if as_json:
        print_json([_hit(hit) for hit in hits])
        return
    if not hits:
        err.print(f"[yellow]{_nothing(namespace, where, min_trust)}[/]")
    for hit in hits:
        out.print(f"[bold]{hit.score:.2f}[/]  {escape(hit.source)}:{hit.slot.line}  [dim]{hit.id}[/]", highlight=False)
        out.print(f"      {escape(' '.join(hit.text.split()))}", highlight=False)


@errors_said
def forget(
    bank: BankOption,
    namespace: NamespaceOption,
    ids: Annotated[list[str] | None, typer.Option("--id", help="A slot's id, or a document's key.")] = None,
    source: Annotated[list[str] | None, typer.Option("--source", help="A document's source.")] = None,
    where: WhereOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything under the namespace.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Erase references from the disk: rows, words in the index, tensors."""
    selection = _where(where) or {}
    if source:
        selection["source"] = source
    if everything == bool(ids or selection):
        raise InvalidInputError("say what to forget, by --id, --source or --where, or say --all, but not both")
    with open_bank(bank) as opened:
        receipt = opened.forget(namespace=namespace.split("/"), ids=ids, where=selection or None)
    if as_json:
        print_json({**asdict(receipt), "erased_at": receipt.erased_at.isoformat()})
        return
    out.print(
        f"erased {len(receipt.slots)} slots of {receipt.documents} whole documents, {receipt.records} records, "
        f"{_megabytes(receipt.tensor_bytes)}   receipt {receipt.id}",
        highlight=False,
    )


@errors_said
def stats(
    bank: BankOption,
    namespace: Annotated[str | None, typer.Option("--namespace", help="Only under this, as a/b.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a bank holds."""
    with open_bank(bank) as opened:
        counted = opened.stats(namespace=None if namespace is None else namespace.split("/"))
    names = {"/".join(name): slots for name, slots in counted.namespaces.items()}
    if as_json:
        print_json({**asdict(counted), "namespaces": names})
        return
    table = Table(box=None, show_header=False)
    for name, value in (
        ("documents", f"{counted.documents:,}"),
        ("slots", f"{counted.slots:,} ({counted.compiled:,} compiled)"),
        ("tokens", f"{counted.tokens:,}"),
        ("tensors", _megabytes(counted.tensor_bytes)),
        ("database", _megabytes(counted.database_bytes)),
        *((f"  {escape(name)}", f"{slots:,} slots") for name, slots in names.items()),
    ):
        table.add_row(name, value)
    out.print(table)


def _nothing(namespace: str, where: list[str] | None, min_trust: float) -> str:
    """Say that there are no hits, and what may have left none."""
    left = " that --where and --min-trust leave" if where or min_trust else ""
    return f"nothing{left} is remembered under {escape(namespace)}"


def _where(conditions: list[str] | None) -> dict[str, Any] | None:
    equal: dict[str, Any] = {}
    bounds: dict[str, dict[str, Any]] = {}
    for condition in conditions or ():
        told = _CONDITION.fullmatch(condition)
        if told is None:
            raise InvalidInputError(f"--where takes KEY=VALUE, or >=, >, <= or < for =, got {condition!r}")
        key, sign, value = told.groups()
        with suppress(ValueError):  # of a string without quotation marks
            value = json.loads(value)
        if sign == "=":
            equal[key] = value
        else:
            bounds.setdefault(key, {})[_COMPARISONS[sign]] = value
    if twice := equal.keys() & bounds.keys():
        raise InvalidInputError(f"--where gives {', '.join(sorted(twice))} a value and bounds: give one of them")
    return {**equal, **bounds} or None


def _hit(hit: Hit) -> dict[str, Any]:
    slot = hit.slot
    return {
        "id": slot.id,
        "score": hit.score,
        "attention": hit.attention,
        "source": slot.source,
        "line": slot.line,
        "start": slot.start,
        "stop": slot.stop,
        "text": slot.text,
        "metadata": dict(slot.metadata),
        "expires_at": None if slot.expires_at is None else slot.expires_at.isoformat(),
        "provenance": slot.provenance,
        "trust": slot.trust,
    }


def _citation(citation: Citation) -> dict[str, Any]:
    return {
        "id": citation.hit.id,
        "source": citation.hit.source,
        "share": citation.share,
        "start": citation.start,
        "stop": citation.stop,
        "text": citation.text,
    }


def _explain(answer: Answer) -> None:
    """Print an answer, each sentence with the number of the source it looked at most, and the sources."""
    from trimem.explicit.attribution import marked

    for sentence, source in marked(answer):
        mark = "" if source is None else f" [dim]\\[{source + 1}][/]"
        out.print(f"{escape(sentence)}{mark}", highlight=False)
    for number, citation in enumerate(answer.citations, 1):
        where = f"{escape(citation.hit.source)}:{citation.hit.slot.line}"
        out.print(f"  [dim]\\[{number}][/] {citation.share:4.0%}  {where}", highlight=False)
        out.print(f"      {escape(' '.join(citation.text.split()))}", highlight=False, style="dim")


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
