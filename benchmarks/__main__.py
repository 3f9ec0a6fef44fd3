"""`python -m benchmarks` (`make bench`): every measurement that needs no other machine, one after the other.

python -m benchmarks [--quick]
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measures import ROOT

# Full runs take about a quarter of an hour on two idle cores; --quick about three minutes.
WITH_QUICK = ("benchmarks.engine_vs_transformers", "benchmarks.http_path", "benchmarks.sim_vs_real")
ALWAYS = ("benchmarks.kv_handover", "benchmarks.router_sse")


def main() -> int:
    """Run all; the exit status is that of the first one that failed, after the others have run."""
    flags = sys.argv[1:]
    if flags not in ([], ["--quick"]):
        print(__doc__, file=sys.stderr)
        return 2
    commands = [[name, *flags] for name in WITH_QUICK] + [[name] for name in ALWAYS]
    statuses = []
    for command in commands:
        print(f"== {' '.join(command)}", file=sys.stderr, flush=True)
        statuses.append(subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode)
    return next((status for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(main())
