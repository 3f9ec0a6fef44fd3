"""Late commands, leases, outages, expiry, stop strings and clients with several branches."""

from verification.protocol.model import Model, Moves
from verification.protocol.state import State


def environment_moves(model: Model, state: State, moves: Moves) -> None:
    return
