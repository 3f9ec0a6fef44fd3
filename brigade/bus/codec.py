"""Messages to bytes and back, field by field. Bytes that are not a message of ours raise DecodeError with the bytes kept.

Layout: a msgpack array [version, field, field, …]; token ids are packed little-endian int32. A frame is the plain
concatenation of its encoded parts, so that a script can leave parts out without understanding them.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import msgpack

from brigade.core.errors import DecodeError
from brigade.core.kv import KVHandle
from brigade.core.messages import (
    SCHEMA_VERSION,
    ControlKind,
    ControlMessage,
    DecodeJob,
    FramePart,
    PrefillJob,
    PullFailed,
    TokensPart,
    WorkerStatus,
)
from brigade.core.request import RequestSpec
from brigade.core.sampling import SamplingParams, StopParams
from brigade.core.step import Sampled

_TOKENS, _PULL_FAILED = 0, 1


def pack_token_ids(token_ids: Iterable[int]) -> bytes:
    """Pack token ids as little-endian int32."""
    packed = array("i", token_ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_token_ids(data: bytes) -> tuple[int, ...]:
    """Unpack little-endian int32 token ids."""
    unpacked = array("i")
    try:
        unpacked.frombytes(data)
    except (TypeError, ValueError) as e:
        raise DecodeError(f"token ids: {e}", data if isinstance(data, bytes) else b"") from e
    if sys.byteorder == "big":
        unpacked.byteswap()
    return tuple(unpacked)


def _pack(*fields: object) -> bytes:
    return bytes(msgpack.packb([SCHEMA_VERSION, *fields]))


def _unpack(data: bytes, what: str, num_fields: int) -> list[Any]:
    try:
        values = msgpack.unpackb(data)
    except (ValueError, msgpack.exceptions.UnpackException) as e:
        raise DecodeError(f"{what}: not msgpack: {e}", data) from e
    return _checked(values, what, num_fields, data)


_Kind = type | tuple[type, ...]
_NUMBER: _Kind = (int, float)
_OPTIONAL_TEXT: _Kind = (str, type(None))


def _require(values: Iterable[object], kinds: Iterable[_Kind], what: str, data: bytes) -> None:
    """Raise DecodeError unless each value is of its kind; a bool is no number."""
    for value, kind in zip(values, kinds, strict=True):
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DecodeError(f"{what}: a field is {type(value).__name__}, not {kind}", data)


def _checked(values: object, what: str, num_fields: int, data: bytes) -> list[Any]:
    if not isinstance(values, list) or len(values) != num_fields + 1:
        raise DecodeError(f"{what}: expected an array of {num_fields + 1} fields", data)
    if values[0] != SCHEMA_VERSION:
        raise DecodeError(f"{what}: schema version {values[0]!r}, this process speaks {SCHEMA_VERSION}", data)
    return values[1:]


_SAMPLING_KINDS: tuple[_Kind, ...] = (*[_NUMBER] * 2, int, _NUMBER, int, *[_NUMBER] * 3, (int, type(None)))


def encode_spec(spec: RequestSpec) -> bytes:
    s, t = spec.sampling, spec.stop
    sampling: list[object] = [s.temperature, s.top_p, s.top_k, s.min_p, s.seed, s.presence_penalty, s.frequency_penalty]
    sampling += [s.repetition_penalty, s.num_logprobs]
    stop = [t.max_tokens, t.min_tokens, sorted(t.stop_token_ids)]
    prompt = pack_token_ids(spec.prompt_token_ids)
    head = (spec.request_id, spec.priority_class, spec.priority, spec.arrival_s, spec.cache_salt)
    return _pack(*head, prompt, sampling, stop)


def decode_spec(data: bytes) -> RequestSpec:
    request_id, cls, priority, arrival_s, salt, prompt, sampling, stop = _unpack(data, "request spec", 8)
    try:
        temperature, top_p, top_k, min_p, seed, presence, frequency, repetition, num_logprobs = sampling
        max_tokens, min_tokens, stop_token_ids = stop
        _require((request_id, cls, priority, arrival_s, salt), (str, str, int, _NUMBER, str), "request spec", data)
        _require(sampling, _SAMPLING_KINDS, "sampling", data)
        _require((max_tokens, min_tokens, *stop_token_ids), (int,) * (2 + len(stop_token_ids)), "stop", data)
        return RequestSpec(
            request_id=request_id,
            prompt_token_ids=unpack_token_ids(prompt),
            sampling=SamplingParams(
                temperature=temperature,
                top_p=top_p,
                top_k=top_k,
                min_p=min_p,
                seed=seed,
                presence_penalty=presence,
                frequency_penalty=frequency,
                repetition_penalty=repetition,
                num_logprobs=num_logprobs,
            ),
            stop=StopParams(max_tokens=max_tokens, min_tokens=min_tokens, stop_token_ids=frozenset(stop_token_ids)),
            priority_class=cls,
            priority=priority,
            arrival_s=arrival_s,
            cache_salt=salt,
        )
    except (TypeError, ValueError) as e:
        raise DecodeError(f"request spec: {e}", data) from e


def encode_prefill_job(job: PrefillJob) -> bytes:
    sizes = (job.num_prompt_tokens, job.num_prefix_tokens, job.max_tokens)
    return _pack(job.request_id, job.attempt, job.priority_class, job.priority, *sizes, job.arrival_s)


def decode_prefill_job(data: bytes) -> PrefillJob:
    values = _unpack(data, "prefill job", 8)
    _require(values, (str, int, str, int, int, int, int, _NUMBER), "prefill job", data)
    request_id, attempt, cls, priority, num_prompt, num_prefix, max_tokens, arrival_s = values
    return PrefillJob(
        request_id=request_id,
        attempt=attempt,
        priority_class=cls,
        priority=priority,
        num_prompt_tokens=num_prompt,
        num_prefix_tokens=num_prefix,
        max_tokens=max_tokens,
        arrival_s=arrival_s,
    )


_HANDLE_KINDS = (str, str, str, str, int, int, int, str, str, str)


def encode_handle(h: KVHandle) -> list[Any]:
    blocks = pack_token_ids(block for block, _ in h.blocks)
    generations = [generation for _, generation in h.blocks]
    place = [h.transport, h.location, h.incarnation, h.worker_id]
    return [
        *place,
        blocks,
        generations,
        h.num_tokens,
        h.block_size_tokens,
        h.block_bytes,
        h.dtype,
        h.layout,
        h.model_revision,
    ]


def decode_handle(values: object, data: bytes) -> KVHandle:
    if not isinstance(values, list) or len(values) != 12:
        raise DecodeError("KV handle: expected an array of 12 fields", data)
    transport, location, incarnation, worker_id, blocks, generations, *rest = values
    num_tokens, block_size_tokens, block_bytes, dtype, layout, model_revision = rest
    try:
        pairs = tuple(zip(unpack_token_ids(blocks), generations, strict=True))
        _require((*generations, *(values[:4]), *rest), (int,) * len(pairs) + _HANDLE_KINDS, "KV handle", data)
    except (TypeError, ValueError) as e:
        raise DecodeError(f"KV handle: {e}", data) from e
    return KVHandle(
        transport=transport,
        location=location,
        incarnation=incarnation,
        worker_id=worker_id,
        blocks=pairs,
        num_tokens=num_tokens,
        block_size_tokens=block_size_tokens,
        block_bytes=block_bytes,
        dtype=dtype,
        layout=layout,
        model_revision=model_revision,
    )


def encode_decode_job(job: DecodeJob) -> bytes:
    output = pack_token_ids(job.output_token_ids)
    return _pack(job.request_id, job.attempt, job.epoch, output, encode_handle(job.handle))


def decode_decode_job(data: bytes) -> DecodeJob:
    request_id, attempt, epoch, output, handle = _unpack(data, "decode job", 5)
    _require((request_id, attempt, epoch, output), (str, int, int, bytes), "decode job", data)
    return DecodeJob(
        request_id=request_id,
        attempt=attempt,
        epoch=epoch,
        output_token_ids=unpack_token_ids(output),
        handle=decode_handle(handle, data),
    )


def encode_part(part: FramePart) -> bytes:
    """Encode one part of a frame; a frame is the concatenation of its parts."""
    return encode_frame((part,))


def encode_frame(parts: Iterable[FramePart]) -> bytes:
    """Encode a frame. One packer for all parts: a frame has one for nearly every token of a step."""
    pack = msgpack.Packer().pack
    return b"".join([pack(_fields_of(part)) for part in parts])


def _fields_of(part: FramePart) -> list[object]:
    if isinstance(part, PullFailed):
        return [SCHEMA_VERSION, _PULL_FAILED, part.request_id, part.attempt, part.reason, None, None, 0]
    tokens = part.tokens
    token_ids = pack_token_ids([t.token_id for t in tokens])
    logprobs = None
    if [t for t in tokens if t.logprob is not None]:
        logprobs = [[t.logprob, [list(pair) for pair in t.top]] for t in tokens]
    tail = [part.offset, part.finish_reason]
    cached = part.num_cached_tokens
    return [SCHEMA_VERSION, _TOKENS, part.request_id, part.attempt, token_ids, logprobs, tail, cached]


def decode_frame(data: bytes) -> list[FramePart]:
    """Decode all parts of one frame."""
    if not data:  # the first entry of a stream, which makes it
        return []
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))  # also bounds what a forged length may allocate
    unpacker.feed(data)
    parts: list[FramePart] = []
    end = 0
    try:
        for values in unpacker:
            end = unpacker.tell()  # after a whole part; once the bytes run out it counts those of a half part too
            parts.append(_decode_part(_checked(values, "frame part", 7, data), data))
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as e:
        raise DecodeError(f"frame: {e}", data) from e
    if end != len(data):
        raise DecodeError("frame: cut short", data)
    return parts


def _decode_part(values: list[Any], data: bytes) -> FramePart:
    kind, request_id, attempt, body, logprobs, tail, num_cached = values
    if kind == _PULL_FAILED:
        _require((request_id, attempt, body), (str, int, str), "frame part", data)
        return PullFailed(request_id=request_id, attempt=attempt, reason=body)
    if kind != _TOKENS:
        raise DecodeError(f"frame part: unknown kind {kind!r}", data)
    offset, finish_reason = tail
    is_sound = (
        type(request_id) is str
        and type(attempt) is type(offset) is type(num_cached) is int
        and type(body) is bytes
        and (finish_reason is None or type(finish_reason) is str)
    )
    if not is_sound:  # asked first in one expression: a part comes for nearly every token
        values = [request_id, attempt, body, offset, finish_reason, num_cached]
        _require(values, (str, int, bytes, int, _OPTIONAL_TEXT, int), "frame part", data)
    token_ids = unpack_token_ids(body)
    if logprobs is None:
        tokens = tuple([Sampled(token_id=t) for t in token_ids])
    else:
        tokens = tuple(
            Sampled(token_id=t, logprob=lp, top=tuple((i, p) for i, p in top))
            for t, (lp, top) in zip(token_ids, logprobs, strict=True)
        )
    return TokensPart(
        request_id=request_id,
        attempt=attempt,
        offset=offset,
        tokens=tokens,
        finish_reason=finish_reason,
        num_cached_tokens=num_cached,
    )


def decode_control(kind: str, request_id: str, attempt: str) -> ControlMessage:
    try:
        return ControlMessage(kind=ControlKind(kind), request_id=request_id, attempt=int(attempt or 0))
    except ValueError as e:
        raise DecodeError(f"control message: {e}") from e


_STATUS_FIELDS = tuple(WorkerStatus.__dataclass_fields__)
_KIND_NAMED: dict[str, _Kind] = {"str": str, "int": int, "float": _NUMBER}
_STATUS_KINDS = tuple(_KIND_NAMED[str(f.type)] for f in fields(WorkerStatus))


def encode_status(status: WorkerStatus) -> bytes:
    return _pack(*(getattr(status, name) for name in _STATUS_FIELDS))


def decode_status(data: bytes) -> WorkerStatus:
    values = _unpack(data, "worker status", len(_STATUS_FIELDS))
    _require(values, _STATUS_KINDS, "worker status", data)
    return WorkerStatus(**dict(zip(_STATUS_FIELDS, values, strict=True)))
