"""Write whole stories, with the request that asks for them and the questions that they can answer."""
# ruff: noqa: E501  a template is one line, so that it reads as the sentence it makes

import random
from dataclasses import dataclass

from demo_training.plots import PLOTS, Plot
from demo_training.templates import expand
from demo_training.world import Character, draw_character, draw_slots, is_held_out

_OPENINGS = (
    "Once upon a time, a {adj} {kind} named {hero} lived {home}.",
    "Once upon a time, there was a {adj} {kind} named {hero} who lived {home}.",
    "Long ago, a {adj} {kind} named {hero} lived {home}.",
    "There was once a {adj} {kind} named {hero}. {He} lived {home}.",
    "{hero} was a {adj} {kind} who lived {home}.",
    "{hero} the {kind} lived {home}. {He} was [very|quite] {adj}.",
    "[Far away|Not far from here], {home}, there lived a {adj} {kind} named {hero}.",
)

_HOBBY = "[{He} liked to {hobby}|{He} loved to {hobby}|Most of all, {he} liked to {hobby}]."
_HOBBY_QUESTION = ("What did {hero} like to do?", "{hero} liked to {hobby}.")

_ENDINGS = (
    "",
    "",
    "The end.",
    "And {hero} and {friend} were friends for [ever|the rest of their lives].",
    "That night, {hero} slept [very well|like a stone|with a smile].",
    "And if you go there today, you may [see them|meet them] still.",
)

_NEXT_DAYS = (
    "[The next day|A week later|Some time later|When winter came|The next spring], there was a new adventure for {hero}.",
    "But that was not [all|the end of it].",
    "{hero} did not have to wait long for another adventure.",
)

_MORE = (
    "The next day, {hero} [visited|went to see] {friend}. They [ate {food}|drank tea|played games] and [talked about everything|laughed all afternoon].",
    "After that, {hero} and {friend} [met every Sunday|often went for walks|became the best of friends]. [Everyone|The whole village] told their story[ for many years|].",
    "{hero} went home and [slept|rested]. In the morning {friend} came with {food}, and they [planned a new adventure|sat in the sun].",
)

_COMMON_QUESTIONS = (
    ("What [is|was] the name of the {kind}?", "The name of the {kind} is {hero}."),
    ("What [is|was] the {kind} called?", "The {kind} is called {hero}."),
    ("What [is|was] the name of the {fkind}?", "The name of the {fkind} is {friend}."),
    ("Who [is|was] {hero}?", "{hero} is a {adj} {kind}."),
    ("Who [is|was] {friend}?", "{friend} is a {fkind}[ and a friend of {hero}|]."),
    ("Who [is|was] the [hero|main character][ of the story|]?", "The hero is {hero} the {kind}."),
    ("What was the story about?", "It was about a {kind} named {hero}."),
    ("Was {hero} a {other_kind}?", "No, {hero} was a {kind}."),
    ("Was {hero} a {kind}?", "Yes, {hero} was a {kind}."),
    ("Where did {hero} live?", "{hero} lived {home}."),
    ("Where did the {kind} live?", "The {kind} lived {home}."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A story, what a user said to get it, and pairs of follow-up question and answer."""

    request: str
    text: str
    hero: Character
    questions: tuple[tuple[str, str], ...]
    continuation: str


def draw_story(rng: random.Random, *, hero: Character | None = None, request: str | None = None) -> Story:
    """Draw a story. With ``hero`` the story is about that character; ``request`` then replaces the drawn request."""
    while hero is None or (request is None and is_held_out(hero)):
        hero = draw_character(rng)
    friend = draw_character(rng, other_than=hero)
    slots = draw_slots(rng, hero, friend)
    plot = rng.choice(PLOTS)
    length = rng.choices(["short", "", "long"], weights=[12, 80, 8])[0] if request is None else ""
    asked = request if request is not None else _draw_request(rng, slots, plot, length)
    has_hobby = length != "short" and rng.random() < 0.45
    sentences = [expand(rng.choice(_OPENINGS), rng, slots)]
    if has_hobby:
        sentences.append(expand(_HOBBY, rng, slots))
    sentences += _tell(rng, plot, slots, brief=length == "short")
    if length == "long":
        for other in rng.sample([p for p in PLOTS if p is not plot], rng.choice([1, 1, 2])):
            sentences += [expand(rng.choice(_NEXT_DAYS), rng, slots), *_tell(rng, other, slots, brief=False)]
    sentences.append(expand(rng.choice(_ENDINGS), rng, slots))
    pairs = (*_COMMON_QUESTIONS, *plot.questions, *plot.questions, *([_HOBBY_QUESTION] if has_hobby else []))
    questions = [_draw_question(rng, pair, slots) for pair in pairs]
    return Story(
        request=asked,
        text=" ".join(filter(None, sentences)),
        hero=hero,
        questions=tuple(questions),
        continuation=expand(rng.choice(_MORE), rng, slots),
    )


def _tell(rng: random.Random, plot: Plot, slots: dict[str, str], *, brief: bool) -> list[str]:
    keep_optional = 0.0 if brief else 0.6
    kept = [b.removeprefix("?") for b in plot.beats if not b.startswith("?") or rng.random() < keep_optional]
    return [expand(beat, rng, slots) for beat in kept]


def _draw_question(rng: random.Random, pair: tuple[str, str], slots: dict[str, str]) -> tuple[str, str]:
    return expand(pair[0], rng, slots), expand(pair[1], rng, slots)


def _draw_request(rng: random.Random, slots: dict[str, str], plot: Plot, length: str) -> str:
    about = rng.choices(
        [
            "a {kind} named {hero}",
            "a {adj} {kind} named {hero}",
            "{hero} the {kind}",
            "a {kind} called {hero}",
            "a {kind}",
            "a {adj} {kind}",
            "{hero} the {kind} and {friend} the {fkind}",
            "a {kind} named {hero} and a {fkind} named {friend}",
            "a {kind} who lived {home}",
            "{theme}",
            "a {kind} and {theme}",
            "a {kind} named {hero} and {theme}",
            "",
        ],
        weights=[20, 8, 12, 8, 10, 5, 5, 5, 5, 6, 4, 4, 8],
    )[0]
    size = f"{length} " if length else rng.choice(["", "", "", "nice ", "little ", "good "])
    if not about:
        asks = [
            "[Please tell|Tell] me a SIZEstory.",
            "Can you tell me a SIZEstory?",
            "I would like [to hear |]a SIZEstory.",
            "A SIZEstory, please.",
        ]
    else:
        asks = [
            "[Please tell|Tell] me a SIZEstory about ABOUT.",
            "Tell me a SIZEstory about ABOUT, please.",
            "[Can|Could|Will] you tell me a SIZEstory about ABOUT?",
            "Tell me a SIZEstory about ABOUT.",
            "[Please write|Write] a SIZEstory about ABOUT.",
            "I [want|would like] [to hear |]a SIZEstory about ABOUT.",
            "a SIZEstory about ABOUT[, please|].",
            "Do you know a SIZEstory about ABOUT?",
        ]
    template = rng.choice(asks).replace("SIZE", size).replace("ABOUT", about)
    return expand(template, rng, slots | {"theme": plot.theme})
