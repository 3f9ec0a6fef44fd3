"""A worker in the role that --role names: `python -m services.worker`."""

from __future__ import annotations

import sys

from services.worker.main import main

sys.exit(main("services.worker"))
