"""Bucket Brigade: a disaggregated LLM-serving system on a durable Redis-streams pipeline."""

__version__ = "0.1.0"
