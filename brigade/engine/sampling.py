"""Draws one token per row of logits. A draw depends on its own logits, seed and index, never on its neighbours.

Chance comes from an integer hash of (seed, index) on the host, one uniform number per token, put through the inverse
of the filtered distribution's cumulative sum in id order. torch's generators are not used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brigade.core.step import Sampled, SampleRequest

_MASK64 = (1 << 64) - 1
# A nucleus is looked for among this many most likely tokens, then more; a flat distribution sorts the whole vocabulary.
_CANDIDATES = (64, 1024)
_RUN_TOKENS = 256


def uniform(seed: int, index: int) -> float:
    """Return the number in [0, 1) that decides token `index` of an answer: a hash, equal on every machine."""
    state = _mix((seed & _MASK64) ^ 0x6A09E667F3BCC909)
    return (_mix((state + (index + 1) * 0x9E3779B97F4A7C15) & _MASK64) >> 11) * 2.0**-53


def sample(logits: Tensor, requests: Sequence[SampleRequest]) -> list[Sampled]:
    """Draw one token per row of logits [len(requests), vocab_size] (f32; changed in place)."""
    tops = _log_probabilities(logits, requests)
    for row, request in enumerate(requests):
        _penalise(logits[row], request)
    drawn = logits.argmax(dim=-1)
    rows = [i for i, request in enumerate(requests) if not request.params.is_greedy]
    if rows:
        drawn = drawn.index_put((_index(rows, logits),), _draw(logits[rows], [requests[i] for i in rows]))
    ids: list[int] = drawn.tolist()
    sampled = []
    for row, token_id in enumerate(ids):
        if row not in tops:
            sampled.append(Sampled(token_id=token_id))
            continue
        logprobs, top = tops[row]
        sampled.append(Sampled(token_id=token_id, logprob=float(logprobs[token_id]), top=top))
    return sampled


def _mix(value: int) -> int:
    """The finaliser of SplitMix64: every input bit changes about half of the output bits."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


def _log_probabilities(
    logits: Tensor, requests: Sequence[SampleRequest]
) -> dict[int, tuple[Tensor, tuple[tuple[int, float], ...]]]:
    """For each row that asks: its log-probabilities [vocab_size] and the most likely (id, value)."""
    result = {}
    for row, request in enumerate(requests):
        wanted = request.params.num_logprobs
        if wanted is None:
            continue
        logprobs = torch.log_softmax(logits[row], dim=-1)
        top: tuple[tuple[int, float], ...] = ()
        if wanted:
            values, ids = logprobs.topk(min(wanted, len(logprobs)))
            # topk leaves the order of equal values open: the lower id goes first.
            pairs = zip(ids.tolist(), values.tolist(), strict=True)
            top = tuple(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))
        result[row] = (logprobs, top)
    return result


def _penalise(row: Tensor, request: SampleRequest) -> None:
    """Apply penalties and banned ids to one row in place."""
    params = request.params
    if params.has_penalties:
        output, counts = np.unique(np.asarray(request.output_token_ids, dtype=np.int64), return_counts=True)
        output_ids = torch.from_numpy(output).to(row.device)
        if params.repetition_penalty != 1.0:
            prompt = np.asarray(request.prompt_token_ids, dtype=np.int64)
            seen = torch.from_numpy(np.union1d(prompt, output)).to(row.device)
            values = row[seen]
            penalty = params.repetition_penalty
            row[seen] = torch.where(values > 0, values / penalty, values * penalty)
        if len(output):
            weights = torch.from_numpy(counts.astype(np.float32)).to(row.device)
            row[output_ids] -= params.frequency_penalty * weights + params.presence_penalty
    if request.banned_token_ids:
        row[_index(sorted(request.banned_token_ids), row)] = -torch.inf


def _draw(logits: Tensor, requests: Sequence[SampleRequest]) -> Tensor:
    """Filter and draw rows [n, vocab_size] that are not greedy (changed in place); returns ids [n]."""
    all_params = [request.params for request in requests]
    for row, params in enumerate(all_params):
        # Before the division, which can make different logits equal. min_p and top_k commute: both cut by value.
        if 0 < params.top_k < logits.shape[1]:
            kth = logits[row].topk(params.top_k).values[-1]
            logits[row].masked_fill_(logits[row] < kth, -torch.inf)
    temperatures = torch.tensor([params.temperature for params in all_params], device=logits.device)
    # Shifted by the maximum, so that a tiny temperature does not overflow and the most likely token weighs 1.
    weights = logits.sub_(logits.amax(dim=-1, keepdim=True)).div_(temperatures[:, None]).exp_()
    if any(params.min_p > 0 for params in all_params):
        floor = torch.tensor([params.min_p for params in all_params], device=logits.device)
        weights.masked_fill_(weights < floor[:, None], 0)
    for row, params in enumerate(all_params):
        if params.top_p < 1:
            weights[row].mul_(_nucleus(weights[row], params.top_p))
    numbers = [uniform(request.params.seed, request.index) for request in requests]
    return _invert(weights, torch.tensor(numbers, dtype=torch.float64, device=logits.device)[:, None])


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """Say which ids form the smallest set that holds top_p of all weight: [vocab_size] bool; ties by lower id."""
    wanted = weights.sum(dtype=torch.float64) * top_p
    for num_candidates in (*_CANDIDATES, len(weights)):
        values = weights.topk(min(num_candidates, len(weights))).values
        before = values.cumsum(0, dtype=torch.float64) - values
        if num_candidates >= len(weights) or bool(before[-1] >= wanted):
            break
    num_kept = max(1, int((before < wanted).sum()))
    cut = values[num_kept - 1]
    num_above = int((values > cut).sum())
    tied = weights == cut
    return (weights > cut) | (tied & (tied.cumsum(0) <= num_kept - num_above))


def _invert(weights: Tensor, numbers: Tensor) -> Tensor:
    """Return the first id of each row whose cumulative weight exceeds number [n, 1] times the row's total.

    Two levels, sums of runs and then one run: a cumulative sum over the whole vocabulary costs several times more.
    """
    runs = F.pad(weights, (0, -weights.shape[1] % _RUN_TOKENS)).unflatten(1, (-1, _RUN_TOKENS))
    run, left = _first_above(runs.sum(dim=-1, dtype=torch.float64), numbers, is_share=True)
    inner = runs.gather(1, run[:, :, None].expand(-1, -1, _RUN_TOKENS)).squeeze(1).double()
    offset, _ = _first_above(inner, left, is_share=False)
    return (run * _RUN_TOKENS + offset).squeeze(1)


def _first_above(sums: Tensor, targets: Tensor, *, is_share: bool) -> tuple[Tensor, Tensor]:
    """Find where the cumulative sum of each row exceeds its target [n, 1] (a share of the total, or a weight).

    Returns the index and what of the target is left there. Rounding never leads past the last weight that is not zero.
    """
    cumulative = sums.cumsum(dim=-1)
    total = cumulative[:, -1:].contiguous()
    goals = targets * total if is_share else targets
    last = torch.searchsorted(cumulative, total)
    index = torch.minimum(torch.searchsorted(cumulative, goals, right=True), last)
    before = cumulative.gather(1, (index - 1).clamp_min(0)) * (index > 0)
    return index, goals - before


def _index(ids: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(ids, dtype=torch.int64, device=like.device)
