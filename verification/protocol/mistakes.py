"""What a naive implementation does, and the scenario that shows why it is wrong.

A mistake must find a counterexample. The few marked `harmless` were suspected and turned out to be safe: they must find none.
"""

from verification.protocol.mistake import Mistake, switches_of
from verification.protocol.mistakes_of_ends import END_MISTAKES
from verification.protocol.mistakes_of_hand_over import HAND_OVER_MISTAKES

MISTAKES: dict[str, Mistake] = {**HAND_OVER_MISTAKES, **END_MISTAKES}
"""Name -> mistake; the name is also its switch (several are joined by +)."""

__all__ = ["MISTAKES", "Mistake", "switches_of"]
