"""Settings: file < environment < flag, and every wrong one stops the program with a sentence that says where."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from brigade.core.config import (
    PARTS,
    BalancerConfig,
    InstallationConfig,
    RouterServiceConfig,
    TimingConfig,
    UpConfig,
    WorkerConfig,
)
from brigade.core.errors import ConfigError
from brigade.core.messages import Role
from brigade.core.settings import (
    SettingsFile,
    Sources,
    add_flags,
    check_env,
    env_of,
    flag_of,
    load,
    make_parser,
    settings_of,
)
from brigade.runtime.service_args import parse_service_args

FILE = """
[installation]
name = "blue"

[worker]
model = "/models/a"
num_threads = 3
"""


@pytest.fixture
def settings_file(tmp_path: Path) -> SettingsFile:
    path = tmp_path / "brigade.toml"
    path.write_text(FILE)
    return SettingsFile.read(str(path))


def load_from(text: str, tmp_path: Path) -> tuple[object, ...]:
    """Load two parts from a file with this text, as a service would."""
    path = tmp_path / "brigade.toml"
    path.write_text(text)
    parser = make_parser("prog")
    add_flags(parser, (InstallationConfig, TimingConfig))
    args = parser.parse_args(["--config", str(path)])
    sources = Sources.of((InstallationConfig, TimingConfig), args=args, env={})
    return sources.load(InstallationConfig), sources.load(TimingConfig)


def test_file_yields_to_environment_and_environment_to_flags(settings_file: SettingsFile) -> None:
    """The nearest source counts, and sources that say nothing change nothing."""
    env = {"BRIGADE_NUM_THREADS": "5", "BRIGADE_DTYPE": "float32"}
    assert load(WorkerConfig, file=settings_file, env={}, flags={}).num_threads == 3
    assert load(WorkerConfig, file=settings_file, env=env, flags={}).num_threads == 5
    worker = load(WorkerConfig, file=settings_file, env=env, flags={"num_threads": "7"})
    assert (worker.num_threads, worker.dtype, worker.model) == (7, "float32", "/models/a")


def test_redis_url_is_also_read_from_its_customary_variable() -> None:
    """REDIS_URL counts, but our own variable counts more."""
    env = {"REDIS_URL": "redis://a:1/0"}
    assert load(InstallationConfig, file=None, env=env, flags={}).redis_url == "redis://a:1/0"
    env["BRIGADE_REDIS_URL"] = "redis://b:1/0"
    assert load(InstallationConfig, file=None, env=env, flags={}).redis_url == "redis://b:1/0"


def test_values_take_the_type_of_their_field() -> None:
    """Text from flags becomes numbers; an optional field takes text or stays None."""
    timing = load(TimingConfig, file=None, env={"BRIGADE_BLOCK_MS": "250"}, flags={"heartbeat_ttl_s": "4"})
    assert timing.block_ms == 250
    assert timing.heartbeat_ttl_s == 4.0
    assert isinstance(timing.heartbeat_ttl_s, float)
    assert load(RouterServiceConfig, file=None, env={}, flags={"model": "m"}).api_key is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"num_threads": "two"}, "--num-threads: num_threads must be a whole number, not 'two'"),
        ({"num_threads": "1.5"}, "must be a whole number"),
        ({"num_threads": "0"}, "--num-threads: num_threads must be above zero, not 0"),
        ({"role": "both"}, "--role: role must be one of prefill, decode, mixed, not 'both'"),
        ({"dtype": "fp8"}, "must be one of auto, float32, bfloat16"),
        ({"device": "tpu"}, "device must be auto, cpu, cuda or cuda:N"),
        ({"worker_name": "a b"}, "worker_name must be"),
        ({"health_port": "70000"}, "health_port must be a port number"),
    ],
)
def test_bad_flag_names_flag_and_field(flags: dict[str, str], words: str) -> None:
    """A wrong value never starts a worker."""
    with pytest.raises(ConfigError) as caught:
        load(WorkerConfig, file=None, env={}, flags={"model": "m", **flags})
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "0"])
def test_durations_are_finite_and_positive(text: str) -> None:
    """Not a number is not a time to wait."""
    with pytest.raises(ConfigError, match="environment variable BRIGADE_GAP_TIMEOUT_S"):
        load(TimingConfig, file=None, env={"BRIGADE_GAP_TIMEOUT_S": text}, flags={})


def test_rule_over_two_fields_is_checked() -> None:
    """A heartbeat that may die between two beats is refused."""
    with pytest.raises(ConfigError, match="twice heartbeat_interval_s"):
        TimingConfig(heartbeat_interval_s=2.0, heartbeat_ttl_s=3.0)


def test_missing_required_value_names_its_three_ways() -> None:
    """The operator learns where a model can be given."""
    with pytest.raises(ConfigError, match=r"set --model, BRIGADE_MODEL or model in \[worker\]"):
        load(WorkerConfig, file=None, env={}, flags={})


def test_unknown_key_in_file_names_its_line(tmp_path: Path) -> None:
    """A misspelt key does not pass in silence."""
    with pytest.raises(ConfigError, match=r"brigade\.toml:3: unknown setting 'nmae' in \[installation\]"):
        load_from("[installation]\nlog_level = 'info'\nnmae = 'x'\n", tmp_path)


def test_unknown_table_in_file_names_its_line(tmp_path: Path) -> None:
    """A misspelt table does not pass in silence; the tables of the other services do pass."""
    with pytest.raises(ConfigError, match=r"brigade\.toml:4: unknown table \[wrker\]"):
        load_from("[worker]\nmodel = 'm'\n\n[wrker]\n", tmp_path)


def test_wrong_type_in_file_names_its_line(tmp_path: Path) -> None:
    """TOML values are not converted behind the operator's back."""
    with pytest.raises(ConfigError, match=r"brigade\.toml:2: name must be text, not 3"):
        load_from("[installation]\nname = 3\n", tmp_path)
    with pytest.raises(ConfigError, match="block_ms must be a whole number, not True"):
        load_from("[timing]\nblock_ms = true\n", tmp_path)
    with pytest.raises(ConfigError, match="log_level must be one of"):
        load_from("[installation]\nlog_level = ['info']\n", tmp_path)


@pytest.mark.parametrize("text", ["not toml", "name = 1\n", "[a\n"])
def test_malformed_file_is_refused(text: str, tmp_path: Path) -> None:
    """A file that cannot be read is one sentence with its path."""
    with pytest.raises(ConfigError, match=r"brigade\.toml"):
        load_from(text, tmp_path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A configuration file that is asked for must be there."""
    with pytest.raises(ConfigError, match="nowhere"):
        SettingsFile.read(str(tmp_path / "nowhere"))


def test_unknown_variable_is_refused() -> None:
    """A misspelt variable does not pass in silence; another service's does pass."""
    check_env({"BRIGADE_PORT": "1", "BRIGADE_CONFIG": "x", "HOME": "/"}, PARTS)
    with pytest.raises(ConfigError, match="BRIGADE_PROT"):
        check_env({"BRIGADE_PROT": "1"}, PARTS)


def test_flags_are_not_abbreviated() -> None:
    """--num means nothing: a new setting must not change what an old command line means."""
    parser = make_parser("prog")
    add_flags(parser, (WorkerConfig,))
    with pytest.raises(ConfigError, match="unrecognized arguments"):
        parser.parse_args(["--num-thr", "1"])


def test_fixed_value_is_neither_flag_nor_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m services.prefill` is a prefill worker whatever the environment says."""
    monkeypatch.setenv("BRIGADE_ROLE", "decode")
    (worker,) = parse_service_args("prog", WorkerConfig, argv=["--model", "m"], fixed={"role": "prefill"})
    assert worker.role is Role.PREFILL


def test_service_with_a_wrong_setting_exits_2_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """No usage dump, no traceback."""
    with pytest.raises(SystemExit) as caught:
        parse_service_args("prog", RouterServiceConfig, argv=["--model", "m", "--port", "http"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "prog: --port: port must be a whole number, not 'http'\n"


def test_every_setting_has_a_flag_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The help is generated, so it is whole."""
    with pytest.raises(SystemExit) as caught:
        parse_service_args("prog", InstallationConfig, TimingConfig, WorkerConfig, argv=["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for part in (InstallationConfig, TimingConfig, WorkerConfig):
        for setting in settings_of(part):
            assert flag_of(setting.name) in text
            assert env_of(setting.name) in text.replace("\n", "").replace(" ", "")


def test_name_that_two_parts_share_is_one_flag() -> None:
    """--health-port of a program with two such parts sets both."""
    parser = make_parser("prog")
    add_flags(parser, (WorkerConfig, BalancerConfig))
    args = parser.parse_args(["--model", "m", "--health-port", "9000"])
    sources = Sources.of((WorkerConfig, BalancerConfig), args=args, env={})
    worker, balancer = sources.load(WorkerConfig), sources.load(BalancerConfig)
    assert worker.health_port == balancer.health_port == 9000


def test_switch_takes_words_for_yes_and_no() -> None:
    """A boolean field reads the usual words and nothing else."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Part:
        section: ClassVar[str] = "part"
        on: bool = field(default=False, metadata={"help": "", "env": None})

    # the annotations of a local class are text; the loader resolves them in this module
    assert load(Part, file=None, env={"BRIGADE_ON": "yes"}, flags={}).on is True
    assert load(Part, file=None, env={"BRIGADE_ON": "yes"}, flags={"on": "OFF"}).on is False
    with pytest.raises(ConfigError, match="on must be true or false"):
        load(Part, file=None, env={"BRIGADE_ON": "maybe"}, flags={})


@pytest.mark.parametrize(
    ("flags", "workers"),
    [
        ({}, (1, 1, 0)),
        ({"mixed": "2"}, (0, 0, 2)),
        ({"prefill": "3"}, (3, 1, 0)),
        ({"mixed": "1", "decode": "2"}, (0, 2, 1)),
    ],
)
def test_up_starts_one_of_each_unless_told_otherwise(flags: dict[str, str], workers: tuple[int, int, int]) -> None:
    """`brigade up` alone is 1P1D; --mixed alone is no more than what it says."""
    up = load(UpConfig, file=None, env={}, flags=flags)
    assert (up.num_prefill, up.num_decode, up.num_mixed) == workers


def test_up_without_decode_worker_is_refused() -> None:
    """An installation that can never answer does not start."""
    with pytest.raises(ConfigError, match="at least one worker each"):
        UpConfig(prefill=2, decode=0)


def test_flag_of_a_switch_may_stand_alone() -> None:
    """`--verbose` needs no word after it, and what is given can be told from a default."""
    parser = make_parser("prog")
    add_flags(parser, (UpConfig,))
    sources = Sources.of((UpConfig,), args=parser.parse_args(["--verbose", "--mixed", "1"]), env={})
    assert sources.load(UpConfig).verbose is True
    assert sources.gives(UpConfig, "mixed")
    assert not sources.gives(UpConfig, "prefill")


def test_secrets_are_not_in_the_representation() -> None:
    """A config that is logged does not give its keys away."""
    config = RouterServiceConfig(model="m", api_key="hush", admin_key="hush")
    assert "hush" not in repr(config)
