"""`brigade worker`: one more worker on this host, the same program as `python -m services.worker`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    """Become the worker process; never returns."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "services.worker", *argv])
