"""Facts about GPUs and models from which KV sizes, pool capacities and transfer times of imported profiles follow."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30
MEMORY_SHARE = 0.9
CAPACITY_RULE = "(0.9 x usable GPU memory x GPUs - weights) / KV bytes per token, rounded down to 16 tokens"
TRANSFER_LATENCY_NS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GPU:
    """`usable_gib` is what a process sees of the memory; one network card per GPU carries `network_gbit_per_s`."""

    usable_gib: float
    network_gbit_per_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The architecture as its config.json has it; KV is kept in 16 bits."""

    num_parameters: float
    num_layers: int
    num_kv_heads: int
    head_dim: int
    bytes_per_parameter: int = 2

    @property
    def kv_bytes_per_token(self) -> int:
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * 2


GPUS = {
    "a100": GPU(usable_gib=79.15, network_gbit_per_s=200),
    "h100": GPU(usable_gib=79.1, network_gbit_per_s=400),
    "h100-capped": GPU(usable_gib=79.1, network_gbit_per_s=400),
    "h200": GPU(usable_gib=139.8, network_gbit_per_s=400),
}

MODELS = {
    "bloom-176b": Model(num_parameters=176.25e9, num_layers=70, num_kv_heads=112, head_dim=128),
    "llama-2-7b": Model(num_parameters=6.74e9, num_layers=32, num_kv_heads=32, head_dim=128),
    "llama-2-13b": Model(num_parameters=13.02e9, num_layers=40, num_kv_heads=40, head_dim=128),
    "llama-2-70b": Model(num_parameters=68.98e9, num_layers=80, num_kv_heads=8, head_dim=128),
    "llama-3.1-8b": Model(num_parameters=8.03e9, num_layers=32, num_kv_heads=8, head_dim=128),
    "llama-3.1-70b": Model(num_parameters=70.55e9, num_layers=80, num_kv_heads=8, head_dim=128),
    "llama-3.1-70b-fp8": Model(
        num_parameters=70.55e9, num_layers=80, num_kv_heads=8, head_dim=128, bytes_per_parameter=1
    ),
    "opt-13b": Model(num_parameters=12.85e9, num_layers=40, num_kv_heads=40, head_dim=128),
    "opt-66b": Model(num_parameters=65.72e9, num_layers=64, num_kv_heads=72, head_dim=128),
    "qwen3-0.6b": Model(num_parameters=0.6e9, num_layers=28, num_kv_heads=8, head_dim=128),
    "qwen3-32b": Model(num_parameters=32.76e9, num_layers=64, num_kv_heads=8, head_dim=128),
}


def kv_capacity_tokens(gpu: GPU, model: Model, num_gpus: int) -> int:
    """Return the tokens that fit beside the weights; none or fewer means that the model does not fit."""
    free_bytes = MEMORY_SHARE * gpu.usable_gib * GIB * num_gpus - model.num_parameters * model.bytes_per_parameter
    return int(free_bytes // model.kv_bytes_per_token) // 16 * 16


def transfer_bytes_per_s(gpu: GPU, num_gpus: int) -> int:
    """Return the bandwidth between two workers: every GPU sends its shard over its own card."""
    return gpu.network_gbit_per_s * 10**9 // 8 * num_gpus
