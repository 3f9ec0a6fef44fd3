"""A worker that starts in the prefill role: `python -m services.prefill`."""

from __future__ import annotations

import sys

from brigade.core.messages import Role
from services.worker.main import main

sys.exit(main("services.prefill", role=Role.PREFILL))
