"""The codec that comes with trimem."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from typer.testing import CliRunner

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem.cli import app
from trimem.text.encoders import Encoder
from trimem.transit import pretrained as module
from trimem.transit.idrp import Idrp
from trimem.transit.pretrained import pretrained

FILE = Path(module.__file__).with_name("all-MiniLM-L6-v2.safetensors")


def test_it_is_what_is_said_of_it(encoder: Encoder) -> None:
    codec = pretrained(encoder.fingerprint)
    assert codec is not None
    about = json.loads(FILE.with_suffix(".json").read_text())
    assert codec.fingerprint == about["fingerprint"]
    assert about["encoder"] == encoder.fingerprint
    assert (codec.dim, codec.config.code_dim, codec.nbytes) == (384, 256, 128)
    assert FILE.stat().st_size < 5 << 20
    assert pretrained("another encoder") is None


def test_embeddings_stay_what_they_were(encoder: Encoder) -> None:
    codec = pretrained(encoder.fingerprint)
    assert codec is not None
    x = torch.from_numpy(encoder.encode_documents([PUMP, BOAT, CAKE, "Ilse Marquardt heads finance."]))
    back = codec.expand(codec.compress(x))
    assert (torch.nn.functional.cosine_similarity(back, x) > 0.94).all()
    assert 0.5 < float(codec.expected_error(codec.compress(x)).mean() / (back - x).square().mean().sqrt()) < 2


def test_a_codec_is_fitted_by_the_command(tmp_path: Path, encoder: Encoder) -> None:
    texts, out = tmp_path / "texts.txt", tmp_path / "codec.safetensors"
    texts.write_text("\n".join(f"Ship {i} carries {i + 3} barrels." for i in range(30)))
    arguments = ["transit", "fit-texts", texts, "--codec", out, "--code", 8, "--json"]
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    said = json.loads(done.stdout)
    assert (said["texts"], said["bytes"], said["encoder"]) == (30, 4, encoder.fingerprint)
    assert Idrp.load(out).fingerprint == said["fingerprint"]
    texts.write_text("\n")
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 1
    assert "holds no text" in done.stderr
