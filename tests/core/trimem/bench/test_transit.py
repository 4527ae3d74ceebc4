"""The transit benchmark: every system takes the bytes it says, and the command keeps its contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tests.core.trimem.transit.test_idrp import curved
from tests.core.trimem.transit.test_images import picture
from trimem import InvalidInputError, LanguageModel
from trimem.bench.transit import bench
from trimem.bench.transit.bench import run
from trimem.bench.transit.systems import SYSTEMS, Task
from trimem.bench.transit.talk import SURPRISES
from trimem.bench.transit.tasks import recall
from trimem.cli import app
from trimem.transit.config import TransitConfig
from trimem.transit.images import write_image

KEYS = [
    "task",
    "split",
    "system",
    "code",
    "image",
    "psnr",
    "mae",
    "mse",
    "recall_at_10",
    "answer_nll",
    "bytes",
    "fit_seconds",
    "compress_per_s",
    "expand_per_s",
]


@pytest.fixture(scope="module")
def task() -> Task:
    config = TransitConfig(4, layers=2, hidden=16, predictor_hidden=16)
    return Task(curved(700, seed=0), curved(100, seed=1), config, "reconstruction", 20, 64, 3e-3, 0)


@pytest.mark.parametrize(
    ("name", "size"), [("idrp", 4), ("pca", 4), ("autoencoder", 4), ("opq", 2), ("pq", 2), ("int8", 24), ("int4", 16)]
)
def test_a_system_stores_what_it_says(task: Task, name: str, size: int) -> None:
    fitted = SYSTEMS[name](task)
    x = curved(50, seed=2)
    back = fitted.expand(fitted.compress(x))
    assert fitted.nbytes(16) == size
    lost = float((back - x).square().mean() / x.var(0).mean())
    assert lost < {"int8": 1e-3, "int4": 0.05}.get(name, 0.6)


def test_trained_systems_do_not_end_below_pca(task: Task) -> None:
    def lost(name: str) -> float:
        fitted = SYSTEMS[name](task)
        return float((fitted.expand(fitted.compress(task.validation)) - task.validation).square().mean())

    floor = lost("pca") * (1 + 1e-5)
    assert lost("idrp") <= floor
    assert lost("autoencoder") <= floor


def test_systems_have_these_names() -> None:
    assert list(SYSTEMS) == ["idrp", "pca", "autoencoder", "opq", "pq", "int8", "int4"]


def test_recall_is_the_share_that_stays() -> None:
    x = torch.eye(20)
    assert recall(x[:5] + 0.1, x, x) == 1.0
    assert recall(torch.arange(20.0)[None], x, x.flip(0)) == 0.0


def test_the_command_keeps_its_contract(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(4):
        write_image(picture(72, 80, seed), images / f"{seed}.png")
    paragraphs = [
        {
            "context": f"Ship {i} carries {i + 3} barrels of tar. Its captain is number {i}. It sails to the north.",
            "qas": [{"question": f"Who is captain of ship {i}?", "answers": [{"text": str(i)}]}],
        }
        for i in range(24)
    ]
    squad, out, plot = tmp_path / "squad.json", tmp_path / "out.json", tmp_path / "plot.png"
    squad.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    arguments = ["--images", images, "--embeddings", squad, "--steps", 2, "--json", out, "--plot", plot]
    arguments += ["--slots", 20_000, "--churn", 30_000, "--code", 8]
    for name in ("paper_64", "paper_synthetic", "patches_8"):
        arguments += ["--task", name]
    for name in ("idrp", "pca", "int4"):
        arguments += ["--system", name]
    done = CliRunner().invoke(app, ["bench", "transit", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    assert all(list(row) == KEYS for row in result["rows"])
    assert {(row["task"], row["split"]) for row in result["rows"]} == {
        ("paper_64", "fitted"),
        ("paper_synthetic", "held_out"),
        ("patches_8", "held_out"),
        ("embeddings", "held_out"),
    }
    of = {(row["task"], row["system"], row["image"]): row for row in result["rows"]}
    assert of["paper_64", "idrp", "all"]["mse"] <= of["paper_64", "pca", "all"]["mse"] * (1 + 1e-5)
    assert of["paper_64", "pca", "3"]["psnr"] > 15
    assert of["embeddings", "pca", "all"]["recall_at_10"] > 0.3
    assert of["embeddings", "pca", "all"]["psnr"] is None
    assert (of["patches_8", "pca", "all"]["bytes"], of["patches_8", "int4", "all"]["bytes"]) == (8, 104)
    assert result["slots"][0]["exact"]
    assert result["slots"][0]["read_p50_ms"] <= result["slots"][0]["read_p99_ms"]
    assert (result["churn"]["lost"], result["churn"]["last_are_held"]) == (0, True)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_key_values_are_answered_from(tmp_path: Path, tiny_llama: LanguageModel) -> None:
    paragraphs = [
        {
            "context": f"Ship {i} carries {i + 3} barrels of tar. Its captain is number {i}. It sails to the north.",
            "qas": [{"question": f"Who is captain of ship {i}?", "answers": [{"text": str(i)}]}],
        }
        for i in range(30)
    ]
    squad = tmp_path / "squad.json"
    squad.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    rows = run(kv=squad, lm=tiny_llama, n=2, names=["float16", "int4", "pca", "pq"])["rows"]
    assert all(list(row) == KEYS for row in rows)
    found = run(bank=squad, n=4)["bank"]
    assert [(row["vectors"], row["by"]) for row in found] == [
        (vectors, by) for vectors in ("float32", "codes") for by in ("words_and_meaning", "meaning")
    ]
    assert all(row["recall_at_1"] <= row["recall_at_10"] == 1 for row in found)
    assert found[2]["database_bytes"] < found[0]["database_bytes"]
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"A lighthouse keeper counts {i} gulls." for i in range(40)))
    (other,) = run(squad=squad, fitted_to=texts, names=["pca"], numbers="int2", codes=[16])["rows"]
    assert (other["split"], other["bytes"]) == ("held_out", 4)
    of = {(row["system"], row["code"]): row for row in rows}
    assert list(of) == [("float16", None), ("int4", None), ("pca", 12), ("pq", None)]
    assert [row["split"] for row in rows] == [None, None, "held_out", "held_out", "held_out"]
    assert rows[0]["mse"] < rows[1]["mse"] < rows[3]["mse"]
    assert rows[3]["bytes"] < rows[2]["bytes"] <= of["int4", None]["bytes"] < of["float16", None]["bytes"] == 64
    assert all(0 < row["answer_nll"] < 100 for row in rows)


def test_what_does_not_surprise_takes_no_slot(tmp_path: Path) -> None:
    days = ["1:56 pm on 8 May, 2023", "1:56 pm on 9 May, 2023"]
    said = ["I saw a heron on the lake.", "We baked an almond cake.", "My brother fixes old clocks."]
    said.append(said[0].replace("saw", "just saw"))
    turns = [{"speaker": "Ada", "dia_id": f"D1:{i}", "text": text} for i, text in enumerate(said, start=1)]
    talk = {"session_1_date_time": days[0], "session_1": turns[:2], "session_2_date_time": days[1]}
    asked = [{"question": "Who baked a cake?", "answer": "Ada", "evidence": ["D1:2"], "category": 4}]
    path = tmp_path / "locomo.json"
    path.write_text(json.dumps([{"conversation": {**talk, "session_2": turns[2:]}, "qa": asked}]))
    every, *rows = run(talk=path, n=9)["talk"]
    assert (every["surprise"], every["slots"], every["turns"], every["recall_at_1"], every["n"]) == (None, 4, 4, 1.0, 1)
    assert [row["surprise"] for row in rows[::2]] == list(SURPRISES)
    assert [row["slots"] for row in rows[::2]] == [row["slots"] for row in rows[1::2]]
    assert rows[0]["slots"] == 3, "the heron takes one"
    assert rows[2]["recall_at_10"] == 1.0


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="nothing to measure"):
        run()
    with pytest.raises(InvalidInputError, match="systems are idrp, pca"):
        run(names=["jpeg"], slots=[10])
    with pytest.raises(InvalidInputError, match="tasks are paper_64"):
        run(tasks=["all"], slots=[10])
    write_image(picture(16, 16, 0), tmp_path / "one.png")
    with pytest.raises(InvalidInputError, match="at least 3"):
        run(images=tmp_path, tasks=["patches_8"])


def test_systems_measure_what_they_are_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(4):
        write_image(picture(72, 80, seed), images / f"{seed}.png")
    told: list[list[str]] = []

    def measured(*_: object, names: list[str], **__: object) -> list[dict[str, Any]]:
        told.append(names)
        return []

    monkeypatch.setattr(bench, "measure_key_values", measured)
    monkeypatch.setattr(bench, "load_model", lambda: None)
    both = bench.run(images=images, kv=tmp_path, tasks=["paper_64"], names=["pca", "float16"], steps=0)
    assert {row["system"] for row in both["rows"]} == {"pca"}
    assert told == [["pca", "float16"]]
    with pytest.raises(InvalidInputError, match="of key-values"):
        bench.run(kv=tmp_path, names=["autoencoder"])
    with pytest.raises(InvalidInputError, match="of images and embeddings"):
        bench.run(images=images, kv=tmp_path, names=["float16"])
