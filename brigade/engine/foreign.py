"""Runs a decoder that the lean forward does not know by transformers' own forward, with our paged attention under it.

It works for architectures whose attention goes through transformers' attention interface and whose tokens meet nowhere
else. Nobody can read that off a config, so `load_foreign` compares a packed prefill and two decode steps of two
sequences with the unmodified model and refuses what differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from brigade.core.errors import ModelError
from brigade.core.sampling import SamplingParams
from brigade.core.step import ModelInfo, SampleRequest, Slice
from brigade.engine.attention import Attention, StepAttention
from brigade.engine.batch import StepBatch, pack
from brigade.engine.folder import ModelFolder
from brigade.engine.linear import Linear, LinearMaker

_INTERFACE_NAME = "brigade_paged"
# Rotary embeddings whose angles depend on the longest sequence seen: packed neighbours would change each other.
_UNSTABLE_ROPE = ("dynamic", "longrope")
_CHECK_BLOCK_TOKENS = 8
_CHECK_LENGTHS = (12, 7)
_CHECK_STEPS = 2


class ForeignModel:
    """A transformers module that computes packed steps."""

    def __init__(self, module: Any, info: ModelInfo) -> None:
        self._module = module
        self._info = info

    def forward(self, batch: StepBatch, attention: Attention) -> Tensor:
        """Compute all tokens, write their KV, and return the logits [number of samples, vocab_size] in f32."""
        step = _CheckedStep(attention.begin(batch), self._info)
        output = self._module(
            input_ids=batch.token_ids[None],
            position_ids=batch.positions[None],
            attention_mask=None,
            use_cache=False,
            logits_to_keep=batch.sampled_rows,
            brigade_step=step,
        )
        if step.layers != list(range(self._info.num_layers)):
            raise ModelError("its layers do not all attend through transformers' attention interface")
        logits: Tensor = output.logits[0].float()
        return logits


class _CheckedStep:
    """Passes calls on, refuses heads that do not fit the pool, and remembers which layers attended."""

    def __init__(self, step: StepAttention, info: ModelInfo) -> None:
        self._step = step
        self._kv_shape = (info.num_kv_heads, info.head_dim)
        self.layers: list[int] = []

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int) -> Tensor:
        if not key.shape[1:] == value.shape[1:] == self._kv_shape:
            raise ModelError(
                f"its heads of {tuple(key.shape[1:])} and {tuple(value.shape[1:])} are not {self._kv_shape}"
            )
        self.layers.append(layer)
        return self._step(layer, query, key, value, scale=scale, window=window)


class _LinearModule(nn.Module):
    """Stands in for nn.Linear with a plug-in's layer."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self._linear = linear

    def forward(self, rows: Tensor) -> Tensor:
        out = self._linear(rows.reshape(-1, rows.shape[-1]))
        return out.view(*rows.shape[:-1], out.shape[-1])


def load_foreign(
    folder: ModelFolder,
    info: ModelInfo,
    *,
    linear: LinearMaker,
    make_attention: Callable[[Tensor], Attention],
    dtype: torch.dtype,
    device: torch.device,
) -> ForeignModel:
    """Load by transformers, compare with the unmodified model, return it. Raises ModelError when it cannot be served."""
    from transformers.modeling_utils import AttentionInterface

    module = _load_module(folder, dtype, device)
    sequences = [[(i * 7919 + 13 * n) % info.vocab_size for i in range(n + _CHECK_STEPS)] for n in _CHECK_LENGTHS]
    model = ForeignModel(module, info)
    shape = (8, info.num_layers, 2, info.num_kv_heads, _CHECK_BLOCK_TOKENS, info.head_dim)
    try:
        expected = _reference(module, sequences, device)
        _replace_linears(module, linear)
        AttentionInterface.register(_INTERFACE_NAME, _attend)
        module.set_attn_implementation(_INTERFACE_NAME)
        computed = _computed(model, make_attention(torch.zeros(shape, dtype=dtype, device=device)), sequences, info)
    except ModelError as error:
        raise ModelError(f"{info.architecture} is not supported: {error}") from None
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError, AssertionError) as error:
        # Whatever a foreign forward trips over under our attention means that it cannot be served.
        reason = f"{type(error).__name__}: {error}"
        raise ModelError(f"{info.architecture} is not supported: its forward fails here ({reason})") from error
    # bf16 rounds every layer differently under another attention; what is really different is off by its own size.
    difference = (computed - expected).square().mean().sqrt() / expected.std()
    allowed = 1e-3 if dtype == torch.float32 else 0.1
    if not difference <= allowed:
        raise ModelError(
            f"{info.architecture} is not supported: its logits under paged attention differ from the unmodified "
            f"model's by {float(difference):.2g} of their spread (allowed {allowed:g})"
        )
    return model


def _load_module(folder: ModelFolder, dtype: torch.dtype, device: torch.device) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its table of weights that do not fit would stand around our sentence
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder.path, dtype=dtype, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except (ValueError, KeyError, OSError, RuntimeError, ImportError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{folder.architecture} cannot be loaded: {first}") from None
    module, report = loaded
    for problem in ("missing_keys", "mismatched_keys"):
        if report.get(problem):
            names = ", ".join(sorted(str(key) for key in report[problem])[:3])
            raise ModelError(f"the weights in {folder.path} do not fit {folder.architecture}: {names}")
    if type(module).__name__ != folder.architecture:
        raise ModelError(f"{folder.architecture} is not supported: transformers has {type(module).__name__} for it")
    kinds = _rope_types(module.config.to_dict())
    if unstable := sorted(kinds.intersection(_UNSTABLE_ROPE)):
        raise ModelError(f"{folder.architecture} with rotary embedding {unstable[0]!r} is not supported")
    return module.eval().to(device)


def _rope_types(value: object) -> set[str]:
    """Find every rope_type in a config, at any depth: some architectures have one per kind of layer."""
    if not isinstance(value, dict):
        return set()
    own = {str(value[key]) for key in ("rope_type",) if value.get(key)}
    return own.union(*(_rope_types(item) for item in value.values()))


def _reference(module: Any, sequences: list[list[int]], device: torch.device) -> Tensor:
    """Logits of the unmodified model at the check's positions: [steps + 1, sequences, vocab_size]."""
    columns = []
    for sequence, length in zip(sequences, _CHECK_LENGTHS, strict=True):
        logits = module(input_ids=torch.tensor([sequence], device=device), use_cache=False).logits[0]
        columns.append(logits[length - 1 : length + _CHECK_STEPS].float())
    return torch.stack(columns, dim=1)


def _computed(model: ForeignModel, attention: Attention, sequences: list[list[int]], info: ModelInfo) -> Tensor:
    """The same logits, packed: one prefill of both sequences, then one token of each at a time."""
    request = SampleRequest(params=SamplingParams(temperature=0.0), index=0)
    rows = []
    for step in range(_CHECK_STEPS + 1):
        slices = []
        for i, (sequence, length) in enumerate(zip(sequences, _CHECK_LENGTHS, strict=True)):
            done, end = (length + step - 1 if step else 0), length + step
            # Tables that are not in order, so that a mix-up of positions and blocks shows.
            slices.append(
                Slice(token_ids=sequence[done:end], num_context_tokens=done, block_table=(6 - i, 1 + i), sample=request)
            )
        batch = pack(
            slices,
            block_size_tokens=_CHECK_BLOCK_TOKENS,
            num_blocks=8,
            vocab_size=info.vocab_size,
            device=next(model._module.parameters()).device,
        )
        rows.append(model.forward(batch, attention))
    return torch.stack(rows)


def _replace_linears(module: nn.Module, linear: LinearMaker) -> None:
    """Put the plug-in's layers where plain nn.Linear layers are."""
    for child_name, child in list(module.named_children()):
        if type(child) is nn.Linear:
            bias = None if child.bias is None else child.bias.detach()
            setattr(module, child_name, _LinearModule(linear.make(child.weight.detach(), bias)))
        else:
            _replace_linears(child, linear)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    brigade_step: StepAttention | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls per layer: query [1, heads, T, head_dim], key and value [1, kv_heads, T, head_dim]."""
    if brigade_step is None:
        raise ModelError("its forward does not pass our step on to the attention")
    if attention_mask is not None:
        raise ModelError("it makes an attention mask of its own")
    changes = [name for name in ("softcap", "s_aux", "position_bias", "head_mask") if others.get(name) is not None]
    if changes or is_causal is False:
        raise ModelError(f"its attention needs {changes[0] if changes else 'is_causal=False'}, which is not computed")
    out = brigade_step(
        module.layer_idx,
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=sliding_window or 0,
    )
    return out[None], None
