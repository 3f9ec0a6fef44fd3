"""Train the demo model: Qwen3 shape, Muon for the matrices of the layers, AdamW for embedding and norms."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

_FLAT_FRACTION = 0.3
_WARM_UP_STEPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How long and how fast to train. ``max_minutes`` shortens the schedule on a slow machine.

    ``rate_scale`` multiplies both learning rates.
    """

    num_tokens: int
    max_minutes: float
    tokens_per_step: int = 2048
    matrix_learning_rate: float = 0.02
    other_learning_rate: float = 3e-3
    rate_scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """What a run did."""

    num_steps: int
    num_tokens: int
    wall_s: float
    last_loss_nats: float
    device: str


def build_model(vocab_size: int, end_token_ids: list[int]) -> Qwen3ForCausalLM:
    """Return the untrained model, f32, on the CPU. ``end_token_ids`` end a turn, first the usual one."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocab_size,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=64,
            max_position_embeddings=2048,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=end_token_ids[0],
            pad_token_id=end_token_ids[-1],
            use_cache=True,
        )
    )


def train(model: Qwen3ForCausalLM, batches: Iterator[torch.Tensor], plan: TrainingPlan) -> TrainingReport:
    """Train in place (bf16 autocast over f32 weights, on CUDA when there is one) and return the model to the CPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module: torch.nn.Module = model
    module.to(device).train()
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    optimizers = (
        torch.optim.Muon(matrices, lr=plan.matrix_learning_rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=plan.other_learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    )
    peak_rates = (plan.matrix_learning_rate, plan.other_learning_rate)
    step, done_tokens, loss_nats = 0, 0, math.nan
    started = time.monotonic()
    while True:
        elapsed_s = time.monotonic() - started
        progress = max(done_tokens / plan.num_tokens, elapsed_s / (60 * plan.max_minutes))
        if progress >= 1:
            break
        scale = plan.rate_scale * _rate_scale(step, progress)
        for optimizer, rate in zip(optimizers, peak_rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * scale
        batch = next(batches).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step, done_tokens = step + 1, done_tokens + batch[:, 1:].numel()
        if step % 50 == 0:
            loss_nats = loss.item()
            rate_tokens_per_s = done_tokens / (time.monotonic() - started)
            print(f"step {step} progress {progress:.3f} loss {loss_nats:.4f} {rate_tokens_per_s:.0f} tok/s", flush=True)
    module.to("cpu").eval()
    wall_s = time.monotonic() - started
    return TrainingReport(
        num_steps=step, num_tokens=done_tokens, wall_s=wall_s, last_loss_nats=loss_nats, device=device.type
    )


def _rate_scale(step: int, progress: float) -> float:
    """Learning rate over its peak: short warm-up, flat, then cosine to zero."""
    warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
    falling = max(0.0, progress - _FLAT_FRACTION) / (1 - _FLAT_FRACTION)
    return warm * 0.5 * (1 + math.cos(math.pi * falling))
