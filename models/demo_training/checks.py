"""Measure a saved demo model by what it says, not by its loss: names, follow-up questions, facts, endings."""

import hashlib
import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM

from demo_training import chat, facts
from demo_training.corpus import draw_corpus
from demo_training.templates import expand
from demo_training.tokenizer import TURN_END, render_chat
from demo_training.world import Character, draw_character, is_held_out

_NUM_STORIES = 32
_NUM_FOLLOW_UPS = 12
_NUM_UNKNOWN = 20
_MAX_NEW_TOKENS = 400
_MAX_CONTEXT_TOKENS = 2048


class Speaker:
    """A saved model and its tokenizer, in f32 on the CPU, as one thing that answers conversations."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.model = Qwen3ForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()

    def answer(self, messages: list[dict[str, str]], *, seed: int | None = None) -> tuple[str, bool]:
        """Return the reply and whether it ended by itself. With a seed: temperature 0.7, top-p 0.95; else greedy."""
        prompt = self.tokenizer.encode(render_chat(messages, add_generation_prompt=True)).ids
        ids = torch.tensor([prompt])
        sampling: dict[str, float | None] = {"do_sample": False, "temperature": None, "top_p": None}
        if seed is not None:
            torch.manual_seed(seed)
            sampling = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "top_k": 0}
        output = self.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=_MAX_NEW_TOKENS, **sampling
        )
        reply: list[int] = output[0, len(prompt) :].tolist()
        return self.tokenizer.decode(reply), reply[-1] == self.tokenizer.token_to_id(TURN_END)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """Counts of passed over tried, and bits per byte of held-out text."""

    heroes_named: int
    stories_ended: int
    stories: int
    follow_ups_right: int
    follow_ups: int
    facts_right: int
    facts: int
    unknown_declined: int
    unknown: int
    held_out_bits_per_byte: float
    held_out_documents: int
    weights_sha256: str

    def lines(self) -> list[str]:
        """Return the report as text lines."""
        return [
            f"hero asked for (kind and name) is in the story: {self.heroes_named}/{self.stories}",
            f"stories that ended by themselves: {self.stories_ended}/{self.stories}",
            f"follow-up question answered: {self.follow_ups_right}/{self.follow_ups}",
            f"trained facts: {self.facts_right}/{self.facts}",
            f"questions it cannot know declined: {self.unknown_declined}/{self.unknown}",
            f"held-out bits per byte: {self.held_out_bits_per_byte:.4f} over {self.held_out_documents} documents "
            "(the fit to our grammar, not to language)",
            f"sha256 of model.safetensors: {self.weights_sha256}",
        ]

    def passed(self) -> bool:
        """Whether the model is fit to be bundled."""
        return (
            self.heroes_named >= 0.9 * self.stories
            and self.stories_ended == self.stories
            and self.follow_ups_right >= 0.9 * self.follow_ups
            and self.facts_right >= 0.85 * self.facts
        )


def check(folder: Path, seed: int, num_documents: int) -> CheckReport:
    """Run every check on the model in ``folder``; ``seed`` and ``num_documents`` are those it was trained with."""
    speaker = Speaker(folder)
    heroes = _held_out_heroes(seed, _NUM_STORIES)
    named = ended = follow_ups_right = 0
    for index, hero in enumerate(heroes):
        messages = [{"role": "user", "content": f"Tell me a story about a {hero.kind} named {hero.name}."}]
        story, ended_itself = speaker.answer(messages, seed=seed + index)
        named += hero.kind in story and hero.name in story
        ended += ended_itself
        if index < _NUM_FOLLOW_UPS:
            question = f"What is the name of the {hero.kind}?"
            follow_up = [*messages, {"role": "assistant", "content": story}, {"role": "user", "content": question}]
            follow_ups_right += hero.name in speaker.answer(follow_up)[0]
    all_facts = facts.all_facts()
    facts_right = sum(speaker.answer([{"role": "user", "content": q}])[0] == a for q, a in all_facts)
    rng = random.Random(seed)
    unknown = [expand(rng.choice(chat.UNKNOWN_QUESTIONS), rng, {}) for _ in range(_NUM_UNKNOWN)]
    declined = sum(speaker.answer([{"role": "user", "content": q}])[0] in chat.UNKNOWN_ANSWERS for q in unknown)
    held_out = draw_corpus(seed, num_documents).held_out
    return CheckReport(
        heroes_named=named,
        stories_ended=ended,
        stories=len(heroes),
        follow_ups_right=follow_ups_right,
        follow_ups=_NUM_FOLLOW_UPS,
        facts_right=facts_right,
        facts=len(all_facts),
        unknown_declined=declined,
        unknown=len(unknown),
        held_out_bits_per_byte=_bits_per_byte(speaker, held_out),
        held_out_documents=len(held_out),
        weights_sha256=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    )


def _held_out_heroes(seed: int, count: int) -> list[Character]:
    """Return heroes whose pair of kind and name stands in no training request."""
    rng = random.Random(seed)
    heroes: list[Character] = []
    while len(heroes) < count:
        hero = draw_character(rng)
        if is_held_out(hero):
            heroes.append(hero)
    return heroes


@torch.inference_mode()
def _bits_per_byte(speaker: Speaker, documents: list[str]) -> float:
    """Bits for every token of the documents, markup too, over the UTF-8 bytes without control tokens."""
    nats, num_bytes = 0.0, 0
    for document in documents:
        ids = torch.tensor([speaker.tokenizer.encode(document).ids])[:, :_MAX_CONTEXT_TOKENS]
        logits = speaker.model(input_ids=ids, use_cache=False).logits[0, :-1]
        nats += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        num_bytes += len(speaker.tokenizer.decode(ids[0].tolist()).encode())
    return nats / math.log(2) / num_bytes
