"""simdistserve as it stands in a checkout of LLMServe/DistServe, timed. Run by an interpreter that has simpy, numpy, pandas:

python peer_simdistserve.py CHECKOUT REQUESTS.json ARGUMENT...

The arguments are those of its simulate_dist.py. Prints one line of JSON: wall and CPU seconds of its event loop alone and of its
whole run, and TTFT and total in ms of each request.
"""

import contextlib
import io
import json
import sys
import time

sys.path.insert(0, sys.argv[1])

import simpy
from simdistserve.benchmarks.simulate_dist import main, parse_args

loop_s = []
run_loop = simpy.Environment.run


def timed_loop(environment, *args, **options):
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    found = run_loop(environment, *args, **options)
    loop_s.append((time.perf_counter() - begin_s, time.process_time() - begin_cpu_s))
    return found


simpy.Environment.run = timed_loop
outputs: dict = {}
arguments = parse_args([*sys.argv[3:], "--workload", sys.argv[2], "--arrival", "custom", "--rate", "1"])
with contextlib.redirect_stdout(io.StringIO()):
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    main(arguments, outputs)
    whole_s = (time.perf_counter() - begin_s, time.process_time() - begin_cpu_s)
latencies = outputs["per_request_latency_df"].sort_index()
print(
    json.dumps(
        {
            "loop_s": loop_s[0],
            "whole_s": whole_s,
            "ttft_ms": latencies["first_token_latency"].tolist(),
            "total_ms": latencies["total_latency"].tolist(),
        }
    )
)
