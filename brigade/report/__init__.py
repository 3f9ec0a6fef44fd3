"""What a run has shown, from the timelines of its requests: the same report for live systems, emulated ones and the simulator.

Nothing here has a clock or runs anything. Figures are exact functions of integer times, equal on every Python.
"""

from brigade.report.result import RunResult
from brigade.report.summary import RunSummary, summarise
from brigade.report.validity import ProcessLag, Validity

__all__ = ["ProcessLag", "RunResult", "RunSummary", "Validity", "summarise"]
