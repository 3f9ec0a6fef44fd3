"""What describes one mistake."""

from dataclasses import dataclass

from verification.protocol.model import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One thing done wrong; `rule` is the rule of docs/protocol.md that it breaks."""

    rule: int
    text: str
    scenario: Scenario
    switches: frozenset[str] = frozenset()
    """The switches it turns on; empty: the one (or, joined by +, those) of its name."""
    beginning: tuple[str, ...] = ()
    """Parts of labels of a given beginning, where the counterexample lies too deep for a search from the start."""
    harmless: bool = False


def switches_of(name: str, mistake: Mistake) -> frozenset[str]:
    return mistake.switches or frozenset(name.split("+"))
