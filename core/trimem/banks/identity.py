"""Whether a bank may be opened as it is asked for: of this mechanism, with this model, encoder and configuration."""

from __future__ import annotations

import shlex
from pathlib import Path

from trimem.errors import FingerprintMismatch, InvalidInputError
from trimem.store.schema import CODED, BankRow
from trimem.text.encoders import Encoder


def check_mechanism(folder: Path, row: BankRow, mechanism: str) -> None:
    """Raise if the bank is of another mechanism.

    Raises:
        InvalidInputError: It is.
    """
    if row.mechanism != mechanism:
        raise InvalidInputError(f"{folder} holds a bank of {row.mechanism} memory, not of {mechanism} memory")


def check_config(folder: Path, stored: object, given: object | None) -> None:
    """Raise if the bank was made with another configuration than the one given; None is any.

    Raises:
        InvalidInputError: It was.
    """
    if given is not None and given != stored:
        raise InvalidInputError(
            f"the bank in {folder} was made with {stored}, got {given}: leave config out, or make a new bank"
        )


def check_model(folder: Path, row: BankRow, name: str, fingerprint: str) -> None:
    """Raise if the bank's tensors were made by another model than the one of this name and fingerprint.

    Raises:
        FingerprintMismatch: They were.
    """
    if fingerprint != row.model_fingerprint:
        what, to = ("codec", "FILE") if row.mechanism == CODED else ("model", name)
        raise FingerprintMismatch(
            f"the bank in {folder} was compiled by {row.model_name} ({row.model_fingerprint}), the {what} given is "
            f"{name} ({fingerprint}): open it with the {what} it was made by, or bring it to this one, run: "
            f"{_command(folder, what, to)}"
        )


def check_encoder(folder: Path, row: BankRow, encoder: Encoder) -> None:
    """Raise if the bank's slots were encoded by another encoder.

    Raises:
        FingerprintMismatch: They were.
    """
    if encoder.fingerprint != row.encoder_fingerprint:
        raise FingerprintMismatch(
            f"the slots in {folder} were encoded by {row.encoder_fingerprint}, the encoder given is "
            f"{encoder.fingerprint}: open the bank with the encoder it was made with, or bring it to this one, run: "
            f"{_command(folder, 'encoder', 'NAME')}"
        )


def _command(folder: Path, what: str, name: str) -> str:
    """Return the command that brings a bank to another model or encoder."""
    return shlex.join(["trimem", "recompile", "--bank", str(folder), f"--{what}", name])
