"""Expand the templates of the demo grammar.

A template is a sentence with choices in square brackets, which may nest, and slots in braces:
``"[One|Each] day, {hero} found a {thing}[ in the grass|]."``. This file knows nothing of stories.
"""

import random
import re
from collections.abc import Mapping

_INNERMOST_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_ARTICLE_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])(?!uni|use|one\b)")
_SENTENCE_START = re.compile(r"(^\W*|[.!?] +\"?)([a-z])")


def expand(template: str, rng: random.Random, slots: Mapping[str, str]) -> str:
    """Return one sentence: choices drawn, slots filled, articles and capitals set. Unknown slots: KeyError."""
    text = template
    while "[" in text:
        text = _INNERMOST_CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), text)
    text = " ".join(text.format_map(slots).split())
    text = _ARTICLE_BEFORE_VOWEL.sub(r"\1n ", text)
    return _SENTENCE_START.sub(lambda match: match.group(1) + match.group(2).upper(), text)
