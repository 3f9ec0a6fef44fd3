"""Make the bundled demo model: draw the text, train the tokenizer and the model, save, check.

``python models/demo/train.py`` trains and checks; ``--continue`` trains the saved model further;
``--check`` only checks it. CUDA is used when present.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo_training.checks import check
from demo_training.corpus import draw_batches, draw_corpus
from demo_training.tokenizer import END_OF_TEXT, TURN_END, save_tokenizer, train_tokenizer
from demo_training.training import TrainingPlan, build_model, train

_TOKENIZER_DOCUMENTS = 4000
_CONTINUED_RATE_SCALE = 0.4


def main() -> int:
    """Run the command line; exit 1 when the trained model fails its checks."""
    args = _parse_args()
    torch.set_num_threads(args.threads)
    if not args.check:
        _make(args)
    report = check(args.out, args.seed, args.documents)
    print("\n".join(report.lines()))
    return 0 if report.passed() else 1


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="folder of the model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--documents", type=int, default=40_000, help="number of training documents to draw")
    parser.add_argument("--tokens", type=int, default=10_000_000, help="training tokens")
    parser.add_argument("--max-minutes", type=float, default=50.0, help="shorten the schedule to this wall time")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument(
        "--continue", dest="go_on", action="store_true", help="train the saved model further, more slowly"
    )
    parser.add_argument("--check", action="store_true", help="only check the saved model")
    return parser.parse_args()


def _make(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    corpus = draw_corpus(args.seed, args.documents)
    if args.go_on:
        tokenizer = Tokenizer.from_file(str(args.out / "tokenizer.json"))
        model = Qwen3ForCausalLM.from_pretrained(args.out, local_files_only=True, dtype=torch.float32)
    else:
        tokenizer = train_tokenizer(corpus.train[:_TOKENIZER_DOCUMENTS])
        model = build_model(tokenizer.get_vocab_size(), _end_token_ids(tokenizer))
    print(f"{model.num_parameters():,} parameters, {len(corpus.train):,} documents", flush=True)
    plan = TrainingPlan(
        num_tokens=args.tokens, max_minutes=args.max_minutes, rate_scale=_CONTINUED_RATE_SCALE if args.go_on else 1.0
    )
    order_seed = args.seed + args.go_on
    report = train(model, draw_batches(tokenizer, corpus.train, order_seed, plan.tokens_per_step), plan)
    print(report, flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    model.bfloat16().save_pretrained(args.out)
    (args.out / "model.safetensors").chmod(0o644)
    save_tokenizer(tokenizer, args.out, max_length_tokens=model.config.max_position_embeddings)
    generation = {
        "do_sample": True,
        "eos_token_id": _end_token_ids(tokenizer),
        "pad_token_id": model.config.pad_token_id,
        "temperature": 0.7,
        "top_p": 0.95,
    }
    (args.out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def _end_token_ids(tokenizer: Tokenizer) -> list[int]:
    return [tokenizer.get_vocab()[token] for token in (TURN_END, END_OF_TEXT)]


if __name__ == "__main__":
    sys.exit(main())
