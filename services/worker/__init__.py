"""The worker host: one engine, one KV pool, one place in the registry, and the two roles on top of them.

`main` builds it, `host` keeps it registered, `life` is one registration with its tasks, `step_loop` drives the engine.
"""
