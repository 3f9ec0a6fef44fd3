"""Messages survive the way through bytes, and bytes that are no message of ours raise DecodeError and nothing else."""

from __future__ import annotations

import string

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brigade.bus import codec
from brigade.core.errors import DecodeError
from brigade.core.kv import KVHandle
from brigade.core.messages import (
    SCHEMA_VERSION,
    ControlKind,
    ControlMessage,
    DecodeJob,
    PrefillJob,
    PullFailed,
    TokensPart,
    WorkerStatus,
)
from brigade.core.request import RequestSpec
from brigade.core.sampling import SamplingParams, StopParams
from brigade.core.step import Sampled

INT32 = st.integers(-(2**31), 2**31 - 1)
COUNT = st.integers(0, 2**40)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(string.printable + "é漢🙂", max_size=12)
TOKENS = st.lists(INT32, max_size=20).map(tuple)

specs = st.builds(
    RequestSpec,
    request_id=TEXT,
    prompt_token_ids=TOKENS,
    sampling=st.builds(
        SamplingParams,
        temperature=FLOAT,
        top_p=FLOAT,
        top_k=COUNT,
        min_p=FLOAT,
        seed=st.integers(0, 2**64 - 1),
        presence_penalty=FLOAT,
        frequency_penalty=FLOAT,
        repetition_penalty=FLOAT,
        num_logprobs=st.none() | COUNT,
    ),
    stop=st.builds(StopParams, max_tokens=COUNT, min_tokens=COUNT, stop_token_ids=st.frozensets(INT32, max_size=5)),
    priority_class=TEXT,
    priority=INT32,
    arrival_s=FLOAT,
    cache_salt=TEXT,
)
prefill_jobs = st.builds(
    PrefillJob,
    request_id=TEXT,
    attempt=COUNT,
    priority_class=TEXT,
    priority=INT32,
    num_prompt_tokens=COUNT,
    num_prefix_tokens=COUNT,
    max_tokens=COUNT,
    arrival_s=FLOAT | st.integers(0, 2**31),
)
handles = st.builds(
    KVHandle,
    transport=TEXT,
    location=TEXT,
    incarnation=TEXT,
    worker_id=TEXT,
    blocks=st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1)), max_size=8).map(tuple),
    num_tokens=COUNT,
    block_size_tokens=COUNT,
    block_bytes=COUNT,
    dtype=TEXT,
    layout=TEXT,
    model_revision=TEXT,
)
decode_jobs = st.builds(DecodeJob, request_id=TEXT, attempt=COUNT, epoch=COUNT, output_token_ids=TOKENS, handle=handles)
plain = st.lists(st.builds(Sampled, token_id=INT32), max_size=5).map(tuple)
with_logprobs = st.lists(
    st.builds(Sampled, token_id=INT32, logprob=FLOAT, top=st.lists(st.tuples(INT32, FLOAT), max_size=3).map(tuple)),
    max_size=4,
).map(tuple)
parts = st.builds(
    TokensPart,
    request_id=TEXT,
    attempt=COUNT,
    offset=COUNT,
    tokens=plain | with_logprobs,
    finish_reason=st.none() | TEXT,
    num_cached_tokens=COUNT,
) | st.builds(PullFailed, request_id=TEXT, attempt=COUNT, reason=TEXT)
statuses = st.builds(
    WorkerStatus,
    worker_id=TEXT,
    host=TEXT,
    pid=COUNT,
    model=TEXT,
    model_revision=TEXT,
    num_blocks=COUNT,
    block_size_tokens=COUNT,
    num_free_blocks=COUNT,
    num_lent_blocks=COUNT,
    num_decoding=COUNT,
    started_s=FLOAT,
    sent_s=FLOAT,
)

HANDLE = KVHandle(
    transport="shm", location="/x", incarnation="i", worker_id="w", blocks=((3, 9), (4, 1)), num_tokens=20,
    block_size_tokens=16, block_bytes=4096, dtype="float32", layout="lhd", model_revision="r",
)  # fmt: skip
SPEC = RequestSpec(
    request_id="r", prompt_token_ids=(1, 2, 3), sampling=SamplingParams(seed=7), stop=StopParams(max_tokens=4)
)
JOB = PrefillJob(
    request_id="r", attempt=1, priority_class="standard", priority=0, num_prompt_tokens=3, num_prefix_tokens=0,
    max_tokens=4, arrival_s=1.5,
)  # fmt: skip
PART = TokensPart(request_id="r", attempt=1, offset=0, tokens=(Sampled(token_id=5, logprob=-0.5, top=((5, -0.5),)),))
STATUS = WorkerStatus(worker_id="w", host="h", pid=1, model="m", model_revision="r", num_blocks=8, block_size_tokens=16)
SAMPLES = {
    "spec": (codec.encode_spec(SPEC), codec.decode_spec),
    "prefill job": (codec.encode_prefill_job(JOB), codec.decode_prefill_job),
    "decode job": (
        codec.encode_decode_job(DecodeJob(request_id="r", attempt=1, epoch=2, output_token_ids=(5,), handle=HANDLE)),
        codec.decode_decode_job,
    ),
    "frame": (codec.encode_part(PART), codec.decode_frame),
    "pull failed": (codec.encode_part(PullFailed(request_id="r", attempt=1, reason="x")), codec.decode_frame),
    "status": (codec.encode_status(STATUS), codec.decode_status),
}
every_message = pytest.mark.parametrize("name", SAMPLES)


@given(TOKENS)
def test_token_ids_are_four_little_endian_bytes_each(token_ids: tuple[int, ...]) -> None:
    """Other programs read these bytes too."""
    data = codec.pack_token_ids(token_ids)
    assert data == b"".join(t.to_bytes(4, "little", signed=True) for t in token_ids)
    assert codec.unpack_token_ids(data) == token_ids


@given(specs)
def test_a_spec_round_trips(spec: RequestSpec) -> None:
    assert codec.decode_spec(codec.encode_spec(spec)) == spec


@given(prefill_jobs)
def test_a_prefill_job_round_trips(job: PrefillJob) -> None:
    assert codec.decode_prefill_job(codec.encode_prefill_job(job)) == job


@given(decode_jobs)
def test_a_decode_job_round_trips(job: DecodeJob) -> None:
    assert codec.decode_decode_job(codec.encode_decode_job(job)) == job


@given(statuses)
def test_a_worker_status_round_trips(status: WorkerStatus) -> None:
    assert codec.decode_status(codec.encode_status(status)) == status


@given(st.lists(parts, max_size=4))
def test_concatenated_parts_decode_as_one_frame(frame: list) -> None:
    """The step script builds frames by putting encoded parts one after the other (rule 19)."""
    assert codec.decode_frame(b"".join(codec.encode_part(part) for part in frame)) == frame


@given(st.lists(parts, min_size=1, max_size=3), st.data())
def test_a_frame_cut_short_is_no_frame(frame: list, data: st.DataObject) -> None:
    """Half a frame must not pass for a frame with fewer parts, unless the cut lies between parts."""
    encoded = [codec.encode_part(part) for part in frame]
    whole = b"".join(encoded)
    cut = data.draw(st.integers(1, len(whole) - 1))
    borders = {sum(map(len, encoded[:i])) for i in range(len(encoded))}
    if cut in borders:
        assert codec.decode_frame(whole[:cut]) == frame[: [sum(map(len, encoded[:i])) for i in range(9)].index(cut)]
    else:
        with pytest.raises(DecodeError):
            codec.decode_frame(whole[:cut])


@pytest.mark.parametrize("kind", ControlKind)
def test_a_control_message_is_read_from_its_fields(kind: ControlKind) -> None:
    assert codec.decode_control(kind.value, "r", "3") == ControlMessage(kind=kind, request_id="r", attempt=3)


@pytest.mark.parametrize(("kind", "attempt"), [("dance", "1"), ("drop", "one")])
def test_an_unknown_control_message_is_refused(kind: str, attempt: str) -> None:
    with pytest.raises(DecodeError):
        codec.decode_control(kind, "r", attempt)


@every_message
def test_every_cut_of_a_message_is_refused_with_its_bytes(name: str) -> None:
    """The bytes go to the dead-letter stream, so the error keeps them."""
    data, decode = SAMPLES[name]
    for cut in range(1, len(data)):
        with pytest.raises(DecodeError) as caught:
            decode(data[:cut])
        assert caught.value.data == data[:cut]


@every_message
def test_another_schema_version_is_refused(name: str) -> None:
    data, decode = SAMPLES[name]
    values = msgpack.unpackb(data)
    values[0] = SCHEMA_VERSION + 1
    with pytest.raises(DecodeError, match="version"):
        decode(msgpack.packb(values))


@every_message
@given(garbage=st.binary(min_size=1, max_size=60))
def test_garbage_is_refused(name: str, garbage: bytes) -> None:
    """Whatever stands on a stream, a consumer meets DecodeError and no other exception."""
    with pytest.raises(DecodeError):
        SAMPLES[name][1](garbage)


@every_message
@given(data=st.data())
def test_a_field_of_the_wrong_type_is_refused(name: str, data: st.DataObject) -> None:
    """A map in the place of any one field: no message may carry it inwards."""
    encoded, decode = SAMPLES[name]
    values = msgpack.unpackb(encoded)
    place = data.draw(st.integers(1, len(values) - 1))
    if name == "pull failed" and place in (5, 6, 7):
        place = 2  # these three say nothing in that kind of part
    values[place] = {"a": 1}
    with pytest.raises(DecodeError):
        decode(msgpack.packb(values))


def test_a_forged_array_length_does_not_allocate() -> None:
    """Five bytes that announce 2**28 elements must cost nothing."""
    with pytest.raises(DecodeError):
        codec.decode_frame(b"\xdd\x10\x00\x00\x00")


def test_the_empty_frame_has_no_parts() -> None:
    """The entry that makes a router's stream carries nothing."""
    assert codec.decode_frame(b"") == []
