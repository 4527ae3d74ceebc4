"""Banks in other languages: what was said comes back, and is found as it may be misheard."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimem import ResonanceBank, ResonanceConfig
from trimem.text.encoders import Encoder

SAID = {
    "cmn": (["我们明天去北京学习。", "他昨天在河边看见一只白鸟。", "厨房里没有牛奶了。"], "我们明天去背景学习"),
    "de": (
        ["Der Schlüssel liegt im Keller.", "Die Fähre fährt nach Norden.", "Das Brot ist alle."],
        "Schlüssel im Geller",
    ),
    "es": (["La llave está en la bodega.", "El barco sale al norte.", "Nos falta pan."], "la yave está en la vodega"),
    "fr-fr": (["Le bateau part demain matin.", "La clé est dans la cave.", "Il manque du pain."], "le bato par demin"),
    "pt": (["A chave está na adega.", "O barco sai amanhã cedo.", "Falta pão."], "a xave está na adeca"),
    "ru": (["Ключ лежит в подвале.", "Завтра корабль уходит на север.", "Нам нужен хлеб."], "ключ лежыт ф потвале"),
    "tr": (["Anahtar kilerde duruyor.", "Gemi yarın kuzeye gidiyor.", "Ekmek lazım."], "anahdar gilerde duruyor"),
}
"""By espeak-ng's name of the language: what was said, and the first of it as it is misheard."""


@pytest.mark.parametrize("language", SAID)
def test_what_was_said_comes_back_and_is_found_misheard(language: str, tmp_path: Path, encoder: Encoder) -> None:
    texts, misheard = SAID[language]
    config = ResonanceConfig(language=language, lexicon_words=3000, keep_text=False)
    with ResonanceBank.open(tmp_path / "bank", encoder=encoder, config=config) as bank:
        slots = bank.remember(texts, namespace="a")
        told = [bank.reconstruct(slot) for slot in slots]
        assert [one.text for one in told] == texts
        assert not any(one.flagged_blocks for one in told)
        assert bank.recall(misheard, 1, namespace="a", by="sound")[0].id == slots[0]
