"""Draw the people and things of one story, and lay them out as template slots."""

import random
from dataclasses import dataclass

from demo_training import lexicon


@dataclass(frozen=True, slots=True, kw_only=True)
class Character:
    """Someone in a story: a kind ("fox"), a name and the pronouns that go with the name."""

    kind: str
    name: str
    is_she: bool


def draw_name(rng: random.Random, *, is_she: bool) -> str:
    """Draw a name; one in six is invented from syllables, with an ending that tells the pronouns."""
    if rng.random() < 1 / 6:
        end = rng.choice(lexicon.SHE_NAME_ENDS if is_she else lexicon.HE_NAME_ENDS)
        return rng.choice(lexicon.NAME_STARTS) + rng.choice(lexicon.NAME_MIDDLES) + end
    return rng.choice(lexicon.SHE_NAMES if is_she else lexicon.HE_NAMES)


def draw_character(rng: random.Random, *, other_than: Character | None = None) -> Character:
    """Draw a character whose name and kind both differ from ``other_than``."""
    while True:
        is_she = rng.random() < 0.5
        gendered = lexicon.SHE_KINDS if is_she else lexicon.HE_KINDS
        kind = rng.choice(rng.choices([lexicon.ANIMALS, lexicon.PEOPLE, gendered], weights=[65, 25, 10])[0])
        name = draw_name(rng, is_she=is_she)
        if other_than is None or (kind != other_than.kind and name != other_than.name):
            return Character(kind=kind, name=name, is_she=is_she)


def is_held_out(character: Character) -> bool:
    """Whether this pair of kind and name is kept out of every training story, for the checks. One pair in ten is."""
    return sum(map(ord, character.kind + character.name)) % 10 == 3


def draw_slots(rng: random.Random, hero: Character, friend: Character) -> dict[str, str]:
    """Return every slot that a story template may use, drawn for one story."""
    food, food2 = rng.sample(lexicon.FOODS, 2)
    slots = {
        "hero": hero.name,
        "kind": hero.kind,
        "adj": rng.choice(lexicon.ADJECTIVES),
        "friend": friend.name,
        "fkind": friend.kind,
        "home": rng.choice(lexicon.HOMES),
        "thing": rng.choice(lexicon.THINGS),
        "food": food,
        "food2": food2,
        "fear": rng.choice(lexicon.FEARS),
        "project": rng.choice(lexicon.PROJECTS),
        "plant": rng.choice(lexicon.PLANTS),
        "instrument": rng.choice(lexicon.INSTRUMENTS),
        "color": rng.choice(lexicon.COLORS),
        "hobby": rng.choice(lexicon.HOBBIES),
        "other_kind": rng.choice([kind for kind in lexicon.ANIMALS if kind not in (hero.kind, friend.kind)]),
        "treasure": rng.choice(lexicon.TREASURES),
    }
    for prefix, character in (("", hero), ("f", friend)):
        pronouns = ("she", "her", "her", "herself") if character.is_she else ("he", "him", "his", "himself")
        for key, word in zip(("he", "him", "his", "himself"), pronouns, strict=True):
            slots[prefix + key] = word
            slots[prefix + key.capitalize()] = word.capitalize()
    return slots
