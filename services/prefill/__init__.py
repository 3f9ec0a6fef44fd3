"""The prefill role: claim waiting requests, compute their prompts in packed chunks, hand the KV over for decoding.

Follow a request: `claiming` (queue → claimed), `batch` (claimed → first token), `handing` (first token → decode worker).
"""
