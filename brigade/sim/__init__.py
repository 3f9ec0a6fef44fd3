"""The simulator: the policies that run live, under a virtual clock in integer nanoseconds.

What decides is imported from `brigade.policies`, what accounts for blocks from `brigade.core.ledger`. What is written anew here
is only what services do between decisions: wait, compute, copy, fail. docs/simulator.md says where that is simplified.
"""
