"""Explicit-state model of the request protocol (docs/protocol.md): every reachable state of small worlds is visited.

A state is what Redis knows, what each worker and the owner know, and the faults that may still happen. One transition is one
script on Redis, one local step, or one fault. Any process may stop for any time between two of its transitions, so a pause
needs no transition of its own; a heartbeat that ends while its process lives is a fault.

A token is the number 10 * attempt + worker, so two computations never agree, and a frame carries every token it was computed
from: whether a continuation was computed from exactly the accepted prefix is checked exactly.

Invariants: I1 each offset once, none beyond the last; I2 every token computed from exactly the accepted prefix; I3 no step on a
block that is not the one of its handle; I4 from every reachable state, without further faults, a quiet state is reached in which
every request has ended at client and record and nothing is left; I5 no decode entry on a worker that has left decode; I6 no
answer ends with an error unless its owner lost its lease or the attempt limit was reached.

Time on one free core, Python 3.11: side models 1 s, mistakes about 100 s, scenarios about 12 minutes (estimate).
"""
