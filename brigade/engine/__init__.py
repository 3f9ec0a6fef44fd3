"""Computes steps of a model on torch: weights, the bytes of the KV pool, packed forward passes, sampling.

It knows blocks and slices (`brigade.core.step`), never requests, queues or roles. Importing this package does not
import torch; `brigade.engine.load` does, `brigade.engine.folder` does not.
"""
