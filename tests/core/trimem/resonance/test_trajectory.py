"""A trajectory is exact to navigate, says what it costs, and survives whatever text it is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimem import CorruptTensorError, InvalidInputError
from trimem.resonance.code import Codebook, CodeConfig, levels_of, pack, salts, unpack
from trimem.resonance.lexicon import Lexicon, lexicon
from trimem.resonance.phonemes import EnglishPhonemizer, phonemizer
from trimem.resonance.torus import DIMS, injections, path
from trimem.resonance.trajectory import Trajectory, encode
from trimem.resonance.units import split_units
from trimem.store.tensors import Place, TensorStore

TEXT = (
    "She told them about the Reichenbach falls, and about the year 1891. There was no one, they're sure, who knew; "
    "see https://example.org/a?b=1 or 💡.\nTheir house stood by the sea. "
) * 40
ODD = {
    "empty": "",
    "emoji": "💩🙂🙂",
    "digits": "7" * 1_000_000,
    "mixed scripts": "water вода 水 ماء पानी wasser",
    "surrogates": "a \ud800 b \udfff",
    "long word": "x" * 10_000,
    "white space": " \t\n\n  \n",
}


@given(st.integers(1, 40), st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=50), st.data())
def test_packed_numbers_come_back(width: int, values: list[int], data: st.DataObject) -> None:
    numbers = np.array(values, dtype=np.int64) & ((1 << width) - 1)
    packed = pack(numbers, width)
    assert len(packed) == -(-len(numbers) * width // 8)
    start = data.draw(st.integers(0, len(numbers)))
    stop = data.draw(st.integers(start, len(numbers)))
    assert unpack(packed, width, start, stop).tolist() == numbers[start:stop].tolist()


def test_the_bytes_are_what_is_promised(codebook: Codebook) -> None:
    trajectory = encode(TEXT, codebook)
    words = len(trajectory)
    assert words == len(split_units(TEXT))
    assert trajectory.sizes["codes"] == -(-words * 20 // 8)
    assert trajectory.sizes["anchored"] == -(-words // 8)
    assert trajectory.sizes["checks"] == 4 * -(-words // 32)
    assert trajectory.sizes["keyframes"] == 64 * (words // 256 + 1)
    assert trajectory.nbytes == sum(trajectory.sizes.values())


def test_seeking_equals_replaying(codebook: Codebook) -> None:
    trajectory = encode(TEXT, codebook)
    codes = trajectory.codes_at(0, len(trajectory))
    pushed = injections(levels_of(codes, codebook.config), 0, codebook.config.bits)
    replayed = path(pushed, torch.zeros(DIMS, dtype=torch.int64)).numpy().astype(np.uint32)
    for position in (0, 1, 255, 256, 257, 700, len(trajectory) - 1, len(trajectory)):
        expected = replayed[position - 1] if position else np.zeros(DIMS, dtype=np.uint32)
        assert trajectory.state(position).tolist() == expected.tolist()
    assert trajectory.span(100, 900).tolist() == (replayed[899] - replayed[99]).tolist()


def test_the_code_does_not_depend_on_what_stands_around(codebook: Codebook) -> None:
    units = split_units(TEXT)
    whole, part = encode(units, codebook), encode(units[100:140], codebook)
    assert whole.codes_at(100, 140).tolist() == part.codes_at(0, 40).tolist()
    assert whole.anchors_at(100, 140) == {at + 100: text for at, text in part.anchors_at(0, 40).items()}


def test_what_the_lexicon_does_not_hold_is_an_anchor(codebook: Codebook) -> None:
    trajectory = encode(TEXT, codebook)
    units = split_units(TEXT)
    anchors = trajectory.anchors_at(0, len(trajectory))
    assert all(units[at] == text for at, text in anchors.items())
    assert {" https://example.org/a?b=1", " 💡.", " Reichenbach"} <= set(anchors.values())
    assert " house" not in anchors.values()
    strange = {at for at, unit in enumerate(units) if unit not in codebook.lexicon.index}
    assert strange <= set(anchors)


def test_with_unigram_anchors_frequency_alone_decodes_everything(codebook: Codebook) -> None:
    units = split_units(TEXT)
    trajectory = encode(units, codebook)
    winners = codebook.winners(trajectory.codes_at(0, len(units)))
    anchors = trajectory.anchors_at(0, len(units))
    assert [anchors.get(at, codebook.lexicon.surfaces[winners[at]]) for at in range(len(units))] == units


def test_salt_tells_homophones_apart(words: Lexicon) -> None:
    plain, salted = (Codebook(words, CodeConfig(salt_bits=bits, unigram_anchors=False)) for bits in (0, 12))
    index = words.index
    there, their = index[" there"], index[" their"]
    assert plain.codes[there] == plain.codes[their]
    assert salted.codes[there] != salted.codes[their]
    assert their in plain.candidates(int(plain.codes[there]))
    assert salts(["a"], 0).tolist() == [0]


def test_candidates_come_most_common_first(codebook: Codebook) -> None:
    prior = codebook.lexicon.log_prior
    shared = max((codebook.candidates(int(code)) for code in codebook.codes[:500]), key=len)
    assert len(shared) > 1
    assert (np.diff(prior[shared]) <= 0).all()
    assert codebook.winners(codebook.codes[shared[:1]])[0] == shared[0]
    assert codebook.winners(np.array([-1]))[0] == -1


@pytest.mark.parametrize("name", ODD)
def test_odd_texts_stay_exact(name: str, codebook: Codebook) -> None:
    text = ODD[name]
    units = split_units(text)
    trajectory = encode(text, codebook)
    again = Trajectory.from_tensors(trajectory.tensors())
    winners = codebook.winners(again.codes_at(0, len(again)))
    anchors = again.anchors_at(0, len(again))
    surfaces = codebook.lexicon.surfaces
    assert "".join(anchors.get(at, surfaces[winners[at]]) for at in range(len(units))) == text
    assert trajectory.state(len(units)).tolist() == again.state(len(units)).tolist()


@settings(max_examples=30)
@given(text=st.text(st.characters(exclude_categories=()), max_size=60))
def test_any_text_is_stored_and_read(text: str, codebook: Codebook) -> None:
    trajectory = encode(text, codebook)
    again = Trajectory.from_tensors(trajectory.tensors())
    units = split_units(text)
    anchors = again.anchors_at(0, len(again))
    winners = codebook.winners(again.codes_at(0, len(again)))
    surfaces = codebook.lexicon.surfaces
    assert [anchors.get(at, surfaces[winners[at]]) for at in range(len(units))] == units


def test_a_trajectory_is_stored_as_tensors(tmp_path: Path, codebook: Codebook) -> None:
    trajectory = encode(TEXT, codebook)
    store = TensorStore(tmp_path)
    staged = store.stage({"one": trajectory.tensors()}, {})
    staged.publish()
    again = Trajectory.from_tensors(store.read(Place(staged.name, staged.records["one"].checksum), "one"))
    assert again.config == trajectory.config
    assert again.lexicon == codebook.lexicon.identity
    assert again.codes_at(5, 50).tolist() == trajectory.codes_at(5, 50).tolist()
    assert again.anchors_at(0, len(again)) == trajectory.anchors_at(0, len(trajectory))
    anchors = again.anchors_at(0, len(again))
    assert len(set(anchors.values())) > 1
    for start in range(len(again)):
        assert again.anchors_at(start, len(again)) == {at: text for at, text in anchors.items() if at >= start}


def test_damaged_tensors_are_refused(codebook: Codebook) -> None:
    tensors = encode(TEXT, codebook).tensors()
    for name in tensors:
        with pytest.raises(CorruptTensorError):
            Trajectory.from_tensors({key: value for key, value in tensors.items() if key != name})
    with pytest.raises(CorruptTensorError, match="do not fit"):
        Trajectory.from_tensors({**tensors, "codes": tensors["codes"][:-1]})
    for name in ("anchored", "checks", "keyframes", "anchor_ids"):
        with pytest.raises(CorruptTensorError, match="do not fit"):
            Trajectory.from_tensors({**tensors, name: torch.cat([tensors[name], tensors[name][-1:]])})


def test_wrong_places_and_choices_are_refused(codebook: Codebook) -> None:
    trajectory = encode(TEXT, codebook)
    for start, stop in ((-1, 3), (4, 3), (0, len(trajectory) + 1)):
        with pytest.raises(InvalidInputError, match="a span lies between"):
            trajectory.codes_at(start, stop)
    with pytest.raises(InvalidInputError, match="positions run"):
        trajectory.state(len(trajectory) + 1)
    without = encode("a b c", Codebook(codebook.lexicon, CodeConfig(keyframe=0)))
    with pytest.raises(InvalidInputError, match="no keyframes"):
        without.state(1)
    for wrong in ({"bits": 4}, {"dims": 17}, {"salt_bits": -1}, {"gain": 0}, {"block": 0}, {"dims": 0, "salt_bits": 0}):
        with pytest.raises(InvalidInputError):
            replace(CodeConfig(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="upgrade"):
        CodeConfig.from_json({**CodeConfig().to_json(), "version": 99})
    with pytest.raises(InvalidInputError, match="at least 1"):
        lexicon(EnglishPhonemizer(), words=0)


def test_codes_come_from_the_sound(codebook: Codebook) -> None:
    """The code of a word the lexicon does not hold is that of its sound, so that it is found by ear."""
    config = replace(codebook.config, salt_bits=0)
    plain = Codebook(codebook.lexicon, config)
    (known, alike), anchored = plain.encode([" hair", " haire"])
    assert anchored.tolist()[1]
    assert bin(int(known) ^ int(alike)).count("1") <= 6


def test_mandarin_is_a_trajectory_too() -> None:
    chinese = Codebook(lexicon(phonemizer("cmn"), words=2000), CodeConfig())
    text = "我们在北京学习。你好吗？"
    units = split_units(text)
    trajectory = encode(text, chinese)
    anchors = trajectory.anchors_at(0, len(units))
    winners = chinese.winners(trajectory.codes_at(0, len(units)))
    assert len(anchors) < len(units) / 2
    assert "".join(anchors.get(at, chinese.lexicon.surfaces[winners[at]]) for at in range(len(units))) == text
