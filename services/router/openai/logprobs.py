"""Log-probabilities in the words of each dialect."""

from __future__ import annotations

from typing import Any

from services.router.answering.part import Part
from services.router.text.tokenizer import ModelTokenizer

LOWEST = -9999.0
"""Stands for minus infinity, which JSON cannot say; the value that vLLM uses."""


def token_name(data: bytes) -> str:
    """Return a token's text, or `bytes:\\xNN…` where it holds part of a character, so that names stay distinct."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def completion_logprobs(part: Part, tokenizer: ModelTokenizer) -> dict[str, Any]:
    """Return OpenAI's older form: parallel lists, the alternatives as {token: log-probability}."""
    tops = []
    for token in part.tokens:
        named = {token_name(tokenizer.token_bytes(token_id)): _finite(value) for token_id, value in token.top}
        # the chosen token is listed even where it was not among the most likely
        named.setdefault(token_name(tokenizer.token_bytes(token.token_id)), _finite(token.logprob))
        tops.append(named)
    return {
        "text_offset": list(part.text_offsets),
        "token_logprobs": [_finite(token.logprob) for token in part.tokens],
        "tokens": [token_name(tokenizer.token_bytes(token.token_id)) for token in part.tokens],
        "top_logprobs": tops,
    }


def chat_logprobs(part: Part, tokenizer: ModelTokenizer) -> dict[str, Any]:
    """Return the newer form: one object per token with its bytes and alternatives."""
    return {
        "content": [
            {
                **_chat_token(token.token_id, token.logprob, tokenizer),
                "top_logprobs": [_chat_token(token_id, value, tokenizer) for token_id, value in token.top],
            }
            for token in part.tokens
        ],
        "refusal": None,
    }


def _chat_token(token_id: int, logprob: float | None, tokenizer: ModelTokenizer) -> dict[str, Any]:
    data = tokenizer.token_bytes(token_id)
    return {"token": token_name(data), "logprob": _finite(logprob), "bytes": list(data)}


def _finite(logprob: float | None) -> float:
    assert logprob is not None, "log-probabilities were asked for and the worker sent none"
    return max(logprob, LOWEST)
