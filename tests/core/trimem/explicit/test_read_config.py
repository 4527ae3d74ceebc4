"""What can be chosen at a reading, and what is refused."""

from __future__ import annotations

import pytest

from trimem import InvalidInputError, ReadConfig
from trimem.explicit.read_config import READ_CONFIGS, as_read_config


def test_a_reading_is_named_or_given() -> None:
    assert as_read_config("mixed") is READ_CONFIGS["mixed"]
    given = ReadConfig(repair=8)
    assert as_read_config(given) is given
    with pytest.raises(InvalidInputError, match="dense, mixed"):
        as_read_config("sparse")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        *(({"density": density}, "density must be") for density in ("sparse", (), (0,), (1.5,), (-8,))),
        *(({"bias": bias}, "bias must be") for bias in (float("nan"), float("inf"), (), "1", ("a",))),
        ({"heads": "first_half"}, "heads must be one of all, calibrated"),
        ({"heads_kept": 0}, "heads_kept must be above 0"),
        ({"layout": "spiral"}, "layout must be one of sequential, parallel, original"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"temperature": float("nan")}, "temperature must be above 0"),
        ({"mass": -1}, "mass must be above 0"),
        ({"repair": -1}, "repair must be"),
        ({"repair": 1.5}, "repair must be"),
        ({"reanchor": 0}, "reanchor must be"),
        ({"exchange": 1.5}, "exchange must be"),
    ],
)
def test_other_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ReadConfig(**values)  # type: ignore[arg-type]
