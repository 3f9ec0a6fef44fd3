"""The decode role: take requests whose KV is ready, bring the KV here, step them together, stream their tokens.

Follow a request: `intake` (own stream → admitted), `batch` (one token a step), `outbox` (tokens → their routers).
"""
