"""Questions that take two facts: who keeps a place, and what that keeper keeps.

Neither fact answers by itself: the one with the answer does not name the place, the one with the place does
not name the answer, and all other facts read like them. All are invented, so no model knows them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from trimem.bench.corpus import Corpus, Question
from trimem.errors import InvalidInputError

_PLACE_NAMES = (
    *("Ashby", "Barrow", "Calder", "Dunmore", "Ellery", "Farrow", "Garrick", "Harlow", "Inver", "Jessop", "Kelling"),
    *("Lorne", "Marsden", "Norrick", "Orsett", "Penhale", "Quill", "Redmire", "Selwick", "Torrin", "Ullock"),
    *("Vellan", "Wexcombe", "Yarrow"),
)
_PLACE_KINDS = (
    *(
        "Bay",
        "Beach",
        "Bridge",
        "Cape",
        "Cliff",
        "Corner",
        "Cove",
        "Creek",
        "Ferry",
        "Field",
        "Ford",
        "Green",
        "Harbour",
    ),
    *("Head", "Heath", "Hill", "Island", "Lake", "Moor", "Point", "Ridge", "Rock", "Sands", "Valley"),
)
_FIRST_NAMES = (
    *("Ada", "Bruno", "Clara", "Doris", "Edgar", "Flora", "Gilbert", "Hedda", "Ivan", "Judith", "Konrad", "Lydia"),
    *("Magnus", "Nora", "Oskar", "Petra", "Quentin", "Rosa", "Silas", "Thea", "Ulrich", "Vera", "Walter", "Zelda"),
)
_LAST_NAMES = (
    *("Abbott", "Birdsall", "Cobley", "Draper", "Eastman", "Fenwick", "Gosling", "Hobday", "Ingram", "Jarvis"),
    *("Kettering", "Lowry", "Mottram", "Nettleton", "Oakley", "Pargeter", "Quayle", "Rudge", "Stannard", "Tripp"),
    *("Upton", "Varley", "Whitlock", "Yates"),
)
_BUILDINGS = ("lighthouse", "mill", "chapel", "museum", "observatory", "signal box", "boathouse", "library")
_SPOTS = ("on the roof", "in the cellar", "in the attic", "behind the stove", "under the stairs", "by the window")
_THINGS = (
    *("balloon", "banjo", "barrel", "basket", "bell", "bicycle", "blanket", "bottle", "bucket", "cage", "camera"),
    *("candle", "canoe", "cannon", "carpet", "chair", "clock", "coat", "compass", "cradle", "crown", "drum", "feather"),
    *("fiddle", "flag", "flute", "globe", "guitar", "hammer", "hammock", "harp", "helmet", "kettle", "kite", "ladder"),
    *("lantern", "lens", "loom", "mask", "mattress", "mirror", "mop", "piano", "pillow", "plough", "puppet", "radio"),
    *("rope", "rug", "saddle", "sail", "scarecrow", "shield", "shovel", "sledge", "spade", "statue", "stool"),
    *("suitcase", "sword", "telescope", "tent", "trumpet", "trunk", "umbrella", "vase", "violin", "wheel", "whistle"),
)
_KEEPING = (
    "The {building} of {place} is kept by {keeper}.",
    "{keeper} is the keeper of the {building} of {place}.",
    "For years {keeper} has looked after the {building} of {place} as its keeper.",
    "Visitors to the {building} of {place} are met by its keeper, {keeper}.",
)
_HAVING = (
    "{keeper} keeps {thing} {spot}.",
    "Everyone knows that {keeper} keeps {thing} {spot}.",
    "What {keeper} keeps {spot} is {thing}.",
    "Since last winter {keeper} has kept {thing} {spot}.",
)
_ASKING = (
    "What does the keeper of the {building} of {place} keep {spot}?",
    "What is it that the keeper of the {building} of {place} keeps {spot}?",
    "Which thing is kept {spot} by the keeper of the {building} of {place}?",
)


@dataclass(frozen=True, slots=True)
class _Chain:
    building: str
    place: str
    keeper: str
    thing: str
    spot: str

    def said(self, wording: str) -> str:
        article = "an" if self.thing[0] in "aeiou" else "a"
        return wording.format(
            building=self.building,
            place=self.place,
            keeper=self.keeper,
            thing=f"{article} {self.thing}",
            spot=self.spot,
        )


def two_facts(n: int, *, seed: int, distractors: int = 0) -> Corpus:
    """Invent questions of two facts each, every fact a passage; the same arguments give the same corpus.

    A place is kept by one person, and a person keeps one place and one thing. The passages of a question
    are first the place's, then the thing's. Facts stand in random order.

    Args:
        n: Questions.
        seed: Of names, things, wordings and order.
        distractors: Pairs of facts of the same form that nothing is asked about.

    Raises:
        InvalidInputError: A number is out of its range, or there are not names enough.
    """
    places = [f"{name} {kind}" for name in _PLACE_NAMES for kind in _PLACE_KINDS]
    keepers = [f"{first} {last}" for first in _FIRST_NAMES for last in _LAST_NAMES]
    most = min(len(places), len(keepers))
    if n < 1 or distractors < 0 or n + distractors > most:
        raise InvalidInputError(
            f"n must be at least 1, distractors at least 0 and both together at most {most}, got {n} and {distractors}"
        )
    draw = random.Random(seed)  # noqa: S311 - a draw, no secret
    things = draw.sample(_THINGS, len(_THINGS))  # each is as frequent as any other
    chains = [
        _Chain(draw.choice(_BUILDINGS), place, keeper, things[i % len(things)], draw.choice(_SPOTS))
        for i, (place, keeper) in enumerate(
            zip(draw.sample(places, n + distractors), draw.sample(keepers, n + distractors), strict=True)
        )
    ]
    facts = [chain.said(draw.choice(wordings)) for chain in chains for wordings in (_KEEPING, _HAVING)]
    order = draw.sample(range(len(facts)), len(facts))
    where = {fact: index for index, fact in enumerate(order)}
    questions = [
        Question(chain.said(draw.choice(_ASKING)), (chain.thing,), (where[2 * i], where[2 * i + 1]))
        for i, chain in enumerate(chains[:n])
    ]
    return Corpus([facts[fact] for fact in order], questions)
