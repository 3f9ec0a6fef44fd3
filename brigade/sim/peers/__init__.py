"""Peer modes: other simulators' schedulers, kept only to show that ours rests on the same truth (docs/peers.md).

Their schedulers are theirs and run nowhere else; nothing live imports this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from brigade.sim.peers.distserve import simulate_distserve
from brigade.sim.peers.vllm_colocated import simulate_vllm
from brigade.sim.peers.workload import PeerRun, PeerWorkload, Placement

PEERS: Mapping[str, Callable[[Placement, PeerWorkload], PeerRun]] = {
    "distserve": simulate_distserve,
    "vllm": simulate_vllm,
}

__all__ = ["PEERS", "PeerRun", "PeerWorkload", "Placement"]
