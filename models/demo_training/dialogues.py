"""Join stories and exchanges into the documents that the model is trained on.

A document is a conversation (a list of chat messages) or, one time in eight, the plain text of a story.
"""

import random

from demo_training import chat, facts
from demo_training.stories import Story, draw_story
from demo_training.templates import expand
from demo_training.tokenizer import END_OF_TEXT, render_chat
from demo_training.world import draw_character, draw_name

Message = dict[str, str]
Exchange = tuple[str, str]

_SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a [kind|friendly|small] storyteller.",
    "You tell [short|simple] stories[ to children|].",
    "Answer [shortly|in short sentences|kindly].",
)
_ANOTHER = (
    "[Another one|Another story|One more|Tell me another story|Tell me another one][, please|.|!|]",
    "Again[, please|!|.]",
)
_MORE = (
    "What happened [next|then|after that]?",
    "[Tell me more|Go on|And then|More, please][.|?|]",
    "How does it go on?",
)
_NAME_GIVEN = ("My name is {name}.", "I am {name}.", "[Hello|Hi], [I am|my name is] {name}.")
_ALL_FACTS = facts.all_facts()


def draw_document(rng: random.Random) -> str:
    """Draw one training document, markup and final end-of-text included."""
    if rng.random() < 0.125:
        return draw_story(rng).text + END_OF_TEXT
    return render_chat(draw_conversation(rng)) + END_OF_TEXT


def draw_conversation(rng: random.Random) -> list[Message]:
    """Draw a conversation of one to about thirty exchanges, at times with a system message."""
    exchanges: list[Exchange] = []
    for _ in range(rng.choices([1, 2, 3, 4, 6, 10], weights=[43, 28, 15, 9, 3, 2])[0]):
        segment = rng.choices(
            [_story, _facts, _greeting, _small_talk, _unknown, _likes, _naming, _rhyme],
            weights=[46, 16, 7, 8, 11, 4, 5, 3],
        )[0]
        exchanges += segment(rng)
    messages = (
        [{"role": "system", "content": expand(rng.choice(_SYSTEM_PROMPTS), rng, {})}] if rng.random() < 0.12 else []
    )
    for said, answered in exchanges:
        messages += [{"role": "user", "content": _typed(rng, said)}, {"role": "assistant", "content": answered}]
    return messages


def _typed(rng: random.Random, text: str) -> str:
    """Return the text as people type it: at times without the last stop, at times in small letters."""
    draw = rng.random()
    if draw < 0.14:
        text = text.rstrip(".?!")
    return text.lower() if 0.08 < draw < 0.2 else text


def _pick(rng: random.Random, templates: tuple[str, ...], **slots: str) -> str:
    return expand(rng.choice(templates), rng, slots)


def _exchange(rng: random.Random, pair: tuple[str, str]) -> Exchange:
    return expand(pair[0], rng, {}), expand(pair[1], rng, {})


def _tell(rng: random.Random, story: Story) -> list[Exchange]:
    exchanges = [(story.request, story.text)]
    asked = rng.sample(story.questions, rng.choices([0, 1, 2, 3, 4], weights=[30, 25, 22, 15, 8])[0])
    exchanges += asked
    if rng.random() < 0.12:
        exchanges.append((_pick(rng, _MORE), story.continuation))
    return exchanges


def _story(rng: random.Random) -> list[Exchange]:
    exchanges = _tell(rng, draw_story(rng))
    if rng.random() < 0.12:
        exchanges += _tell(rng, draw_story(rng, request=_pick(rng, _ANOTHER)))
    return exchanges


def _facts(rng: random.Random) -> list[Exchange]:
    chosen = rng.sample(_ALL_FACTS, rng.choice([1, 2, 3, 4]))
    return list(chosen)


def _greeting(rng: random.Random) -> list[Exchange]:
    return [_exchange(rng, rng.choice(chat.GREETINGS))]


def _small_talk(rng: random.Random) -> list[Exchange]:
    return [_exchange(rng, rng.choice(chat.SMALL_TALK))]


def _unknown(rng: random.Random) -> list[Exchange]:
    exchanges = [(_pick(rng, chat.UNKNOWN_QUESTIONS), _pick(rng, chat.UNKNOWN_ANSWERS))]
    draw = rng.random()
    if draw < 0.35:
        exchanges += _tell(rng, draw_story(rng, request=_pick(rng, chat.YES)))
    elif draw < 0.5:
        exchanges.append((_pick(rng, chat.NO), _pick(rng, chat.NO_ANSWERS)))
    return exchanges


def _likes(rng: random.Random) -> list[Exchange]:
    hero = draw_character(rng)
    exchanges = [
        (
            _pick(
                rng,
                (
                    f"I [really |]like {hero.kind} stories.",
                    f"I want a {hero.kind}.",
                    f"My favourite animal is the {hero.kind}.",
                ),
            ),
            _pick(rng, (f"A {hero.kind} is a [fine|good] hero. Shall I tell you a story about a {hero.kind}?",)),
        )
    ]
    if rng.random() < 0.7:
        exchanges += _tell(rng, draw_story(rng, hero=hero, request=_pick(rng, chat.YES)))
    return exchanges


def _naming(rng: random.Random) -> list[Exchange]:
    name = draw_name(rng, is_she=rng.random() < 0.5)
    exchanges = [
        (
            _pick(rng, _NAME_GIVEN, name=name),
            _pick(rng, ("Hello, {name}! [Shall I tell you a story|What can I do for you]?",), name=name),
        )
    ]
    if rng.random() < 0.5:
        exchanges += rng.choice([_facts, _story])(rng)
    exchanges.append((_pick(rng, ("What is my name?", "Do you know my name?", "Who am I?")), f"Your name is {name}."))
    return exchanges


def _rhyme(rng: random.Random) -> list[Exchange]:
    return [(_pick(rng, chat.RHYME_REQUESTS), _pick(rng, chat.RHYMES))]
