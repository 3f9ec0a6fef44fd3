"""NVIDIA Dynamo's offline replay, timed. Run by the interpreter of an environment that has ai-dynamo-runtime:

python peer_dynamo.py TRACE.jsonl NUM_PREFILL NUM_DECODE

Prints one line of JSON: wall and CPU seconds of the call, requests that completed.
"""

import json
import sys
import time

from dynamo._core import run_mocker_trace_replay

# Tokens that one hash id of the trace stands for.
BLOCK_TOKENS = 512


def main() -> None:
    trace, num_prefill, num_decode = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    result = run_mocker_trace_replay(
        [trace],
        trace_block_size=BLOCK_TOKENS,
        prefill_engine_args={"engine": {"worker_type": "prefill"}},
        decode_engine_args={"engine": {"worker_type": "decode"}},
        num_prefill_workers=num_prefill,
        num_decode_workers=num_decode,
    )
    wall_s, cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
    print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "completed": result.summary["completed_requests"]}))


main()
