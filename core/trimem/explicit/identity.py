"""Whether a bank may be opened as it is asked for: by this model, with this encoder and configuration."""

from __future__ import annotations

from pathlib import Path

from trimem.errors import FingerprintMismatch, InvalidInputError
from trimem.explicit.config import ExplicitConfig
from trimem.lm.model import LanguageModel
from trimem.store.schema import BankRow
from trimem.text.encoders import Encoder

MECHANISM = "explicit"


def check_config(folder: Path, row: BankRow, config: ExplicitConfig | None) -> None:
    """Raise if the bank is of another mechanism or was made with another configuration.

    Raises:
        InvalidInputError: It is, or was.
    """
    if row.mechanism != MECHANISM:
        raise InvalidInputError(f"{folder} holds a bank of {row.mechanism} memory, not of {MECHANISM} memory")
    stored = ExplicitConfig.from_json(row.config)
    if config is not None and config != stored:
        raise InvalidInputError(
            f"the bank in {folder} was made with {stored}, got {config}: leave config out, or make a new bank"
        )


def check_model(folder: Path, row: BankRow, lm: LanguageModel) -> None:
    """Raise if the bank was compiled by another model.

    Raises:
        FingerprintMismatch: It was.
    """
    if lm.fingerprint != row.model_fingerprint:
        raise FingerprintMismatch(
            f"the bank in {folder} was compiled by {row.model_name} ({row.model_fingerprint}), the model given is "
            f"{lm.name} ({lm.fingerprint}): open it with the model it was made by, or compile its documents into a "
            "new bank"
        )


def check_encoder(folder: Path, row: BankRow, encoder: Encoder) -> None:
    """Raise if the bank's slots were encoded by another encoder.

    Raises:
        FingerprintMismatch: They were.
    """
    if encoder.fingerprint != row.encoder_fingerprint:
        raise FingerprintMismatch(
            f"the slots in {folder} were encoded by {row.encoder_fingerprint}, the encoder given is "
            f"{encoder.fingerprint}: open the bank with the encoder it was made with"
        )
