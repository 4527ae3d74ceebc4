"""Which KV heads of a model fetch facts from memory, as :mod:`trimem.explicit.calibrate` found it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from trimem.errors import CalibrationNotFoundError, InvalidInputError
from trimem.lm.load import cache_folder
from trimem.lm.model import LanguageModel

CALIBRATION_VERSION = 1


@dataclass(frozen=True, slots=True)
class Calibration:
    """How much each KV head of a model does to fetch a fact.

    Attributes:
        model: The model's name.
        fingerprint: The model's fingerprint.
        samples: Facts it was measured on.
        seed: Of the facts.
        copy_score: layers x num_kv_heads, attention paid to the token that is said next.
        ablation: layers x num_kv_heads, nats an answer token loses without the head.
        head_bias: layers x num_kv_heads, how much more a head should heed memory than text, in nats
            (:mod:`trimem.explicit.head_bias`); None if that was not fitted.
    """

    model: str
    fingerprint: str
    samples: int
    seed: int
    copy_score: list[list[float]]
    ablation: list[list[float]]
    head_bias: list[list[float]] | None = None

    def ranking(self) -> list[tuple[int, int]]:
        """Return all heads as (layer, KV head), the one that is missed most first.

        By ablation: on SQuAD, heads kept by it read better at every number than those kept by copy score.
        """
        heads = [(layer, head) for layer, scores in enumerate(self.ablation) for head in range(len(scores))]
        return sorted(heads, key=lambda at: -self.ablation[at[0]][at[1]])

    def best(self, heads: int) -> Tensor:
        """Return the first ``heads`` heads of the ranking as a mask (layers, num_kv_heads)."""
        mask = torch.zeros(len(self.ablation), len(self.ablation[0]), dtype=torch.bool)
        for layer, head in self.ranking()[:heads]:
            mask[layer, head] = True
        return mask

    def to_json(self) -> str:
        return json.dumps({"version": CALIBRATION_VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Read what :meth:`to_json` made.

        Raises:
            InvalidInputError: It is no calibration, or one of another version.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            if data.pop("version") != CALIBRATION_VERSION:
                raise KeyError("version")
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInputError(f"this is no calibration of version {CALIBRATION_VERSION}: {error!r}") from error


def own_calibration(lm: LanguageModel) -> Path:
    """Return where the calibration of a model that was made on this machine lies."""
    return cache_folder() / "calibrations" / f"{lm.fingerprint}.json"


def save(calibration: Calibration, path: Path) -> None:
    """Write a calibration as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    temporary.write_text(calibration.to_json(), encoding="utf-8")
    temporary.replace(path)


def calibration_of(lm: LanguageModel) -> Calibration:
    """Return the calibration made on this machine for a model, or the one that comes with trimem.

    Raises:
        CalibrationNotFoundError: There is none.
    """
    shipped = files("trimem.explicit") / "calibrations" / f"{lm.fingerprint}.json"
    for found in (own_calibration(lm), shipped):
        if found.is_file():
            calibration = Calibration.from_json(found.read_text(encoding="utf-8"))
            heads = [layer.num_kv_heads for layer in lm.layers]
            if [len(scores) for scores in calibration.ablation] != heads:
                raise InvalidInputError(f"{found} is no calibration of {lm.name}: delete it and run trimem calibrate")
            return calibration
    raise CalibrationNotFoundError(
        f"the heads of {lm.name} have not been calibrated: run trimem calibrate --model {lm.name}, once, "
        'or choose heads="all"'
    )


def head_bias_of(lm: LanguageModel) -> Tensor:
    """Return the bias of each head that was fitted for a model (layers, num_kv_heads).

    Raises:
        CalibrationNotFoundError: None was.
    """
    found = calibration_of(lm).head_bias
    if found is None:
        raise CalibrationNotFoundError(
            f"no bias of the heads of {lm.name} was fitted: run trimem calibrate --head-bias --model {lm.name}, once"
        )
    return torch.tensor(found)
