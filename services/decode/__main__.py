"""A worker that starts in the decode role: `python -m services.decode`."""

from __future__ import annotations

import sys

from brigade.core.messages import Role
from services.worker.main import main

sys.exit(main("services.decode", role=Role.DECODE))
