"""Makes tokenizer.json of the emulated model: the 256 bytes, then words that stand for nothing, up to 1024 tokens.

python models/emulated/make.py
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

VOCAB_SIZE = 1024


def main() -> None:
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    names += [f"Ġw{number}" for number in range(len(names), VOCAB_SIZE)]
    tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(Path(__file__).with_name("tokenizer.json")), pretty=False)


if __name__ == "__main__":
    main()
