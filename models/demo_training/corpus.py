"""Draw the documents, split off the held-out ones, and cut the training tokens into windows."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from demo_training.dialogues import draw_document

NUM_HELD_OUT = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Training documents, and held-out documents of which none equals a training document."""

    train: list[str]
    held_out: list[str]


def draw_corpus(seed: int, num_documents: int) -> Corpus:
    """Draw ``num_documents`` documents plus the held-out ones; the split is made on documents, before any window."""
    rng = random.Random(seed)
    documents = [draw_document(rng) for _ in range(num_documents + NUM_HELD_OUT)]
    train = documents[NUM_HELD_OUT:]
    seen = set(train)
    return Corpus(train=train, held_out=[d for d in documents[:NUM_HELD_OUT] if d not in seen])


def draw_batches(tokenizer: Tokenizer, documents: list[str], seed: int, tokens_per_step: int) -> Iterator[torch.Tensor]:
    """Yield batches of token ids for ever, int64, shape [num_windows, window + 1].

    Each window starts where a document starts and is cut where it is full. Most windows have 512 tokens; every
    eighth batch has windows of 1024 and every thirty-second of 2048, so that later positions are trained too.
    """
    rng = random.Random(seed)
    order: list[int] = []
    step = 0
    while True:
        step += 1
        window = 2048 if step % 32 == 0 else 1024 if step % 8 == 0 else 512
        rows = []
        for _ in range(max(1, tokens_per_step // window)):
            row: list[int] = []
            while len(row) < window + 1:
                if not order:
                    order = rng.sample(range(len(documents)), len(documents))
                row += tokenizer.encode(documents[order.pop()]).ids
            rows.append(row[: window + 1])
        yield torch.tensor(rows)
