"""The scenarios in which every rule is on: all invariants must hold in every reachable state."""

from verification.protocol.model import Scenario

SCENARIOS = {
    "plain-1x3": Scenario(num_tokens=3),
    "plain-2x2": Scenario(num_requests=2, roles="PD"),
    "crash-slow": Scenario(crash=1, slow=1, roles="PPD"),
    "slow-2": Scenario(slow=2, roles="PD"),
    "slow-1-PPDD": Scenario(slow=1, num_tokens=3, roles="PPDD"),
    "slow-2-3tok": Scenario(slow=2, num_tokens=3, roles="PD"),
    "crash-cancel": Scenario(crash=1, cancel=1, num_tokens=3, roles="PPDD"),
    "slow-cancel-lost": Scenario(slow=1, cancel=1, lost_reply=1, roles="PDD"),
    "lost-2": Scenario(lost_reply=2, num_tokens=3, roles="PD"),
    "flip-crash": Scenario(flip=1, crash=1, num_tokens=3, roles="PPDD"),
    "flip-slow-lost": Scenario(flip=1, slow=1, lost_reply=1, roles="PDD"),
    "flip-cancel-3tok": Scenario(flip=1, cancel=1, lost_reply=1, num_tokens=3, roles="PDD"),
    "flip-twice": Scenario(flip=2, num_tokens=3, roles="PDD"),
    "loss": Scenario(loss=1, num_tokens=3, roles="PD", loss_writes=4),
    "loss-slow": Scenario(loss=1, slow=1, roles="PD", loss_writes=3),
    "loss-cancel": Scenario(loss=1, cancel=1, roles="PD", loss_writes=4),
    "loss-crash": Scenario(loss=1, crash=1, roles="PPDD", loss_writes=2),
    "loss-crash-P": Scenario(loss=1, crash=1, roles="PPD", loss_writes=2),
    "loss-crash-D": Scenario(loss=1, crash=1, roles="PDD", loss_writes=2),
    "loss-flip": Scenario(loss=1, flip=1, roles="PDD", loss_writes=2),
    "owner-crash": Scenario(owner_crash=1, slow=1, roles="PPD"),
    "owner-crash-loss": Scenario(owner_crash=1, loss=1, roles="PD", loss_writes=3),
    "trim": Scenario(trim=1, slow=1, num_tokens=3, roles="PD"),
    "mixed": Scenario(roles="MM", slow=1, cancel=1),
    "mixed-2req": Scenario(roles="MM", num_requests=2),
    "two-req-slow": Scenario(roles="PD", num_requests=2, slow=1),
    "two-req-cancel": Scenario(roles="PD", num_requests=2, cancel=1, lost_reply=1),
}
"""Name -> scenario, in the order in which they are run and shown."""
