"""Reads the parts of config.py: a TOML file < the environment < flags. Anything unknown or malformed is a ConfigError.

Every field has a key in its part's table of the file, a variable `BRIGADE_FIELD` and a flag `--field`. Errors say which
of the three was wrong. Nothing here reads the process's own environment or arguments; both are handed in.
"""

from __future__ import annotations

import argparse
import math
import re
import tomllib
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from brigade.core.config import PARTS
from brigade.core.errors import ConfigError

Part = TypeVar("Part")

ENV_PREFIX = "BRIGADE_"
CONFIG_ENV = "BRIGADE_CONFIG"
"""Names the configuration file, as the flag --config does."""

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFile:
    """A configuration file, read once and shared by the parts. `text` is kept to name lines in errors."""

    path: str
    text: str
    tables: Mapping[str, Mapping[str, object]]

    @classmethod
    def read(cls, path: str) -> SettingsFile:
        """Read a TOML file of tables. Raises ConfigError when it is missing or malformed."""
        try:
            text = Path(path).read_text(encoding="utf-8")
            tables = tomllib.loads(text)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read as a configuration file: {error}") from error
        for name, table in tables.items():
            if not isinstance(table, dict):
                raise ConfigError(f"{path}: {name} must stand in a table such as [installation]")
        return cls(path=path, text=text, tables=tables)

    def place(self, section: str, key: str | None = None) -> str:
        """Return "file:line" of a table or of a key in it."""
        current = ""
        for number, line in enumerate(self.text.splitlines(), start=1):
            header = re.match(r"\s*\[\s*\"?([^\]\"]+?)\"?\s*\]", line)
            if header:
                current = header.group(1)
                if key is None and current == section:
                    return f"{self.path}:{number}"
            elif key is not None and current == section and re.match(rf"\s*\"?{re.escape(key)}\"?\s*=", line):
                return f"{self.path}:{number}"
        return self.path

    def check_sections(self, known: Sequence[type]) -> None:
        """Raise ConfigError for a table or key that no part has."""
        names = {section_of(part): {f.name for f in settings_of(part)} for part in known}
        for section, table in self.tables.items():
            if section not in names:
                raise ConfigError(
                    f"{self.place(section)}: unknown table [{section}]; known: {', '.join(sorted(names))}"
                )
            for key in table:
                if key not in names[section]:
                    raise ConfigError(f"{self.place(section, key)}: unknown setting {key!r} in [{section}]")


def section_of(part: type) -> str:
    """Return the name of a part's table in the file."""
    return str(getattr(part, "section"))  # noqa: B009 - a part is any dataclass with this class variable


def settings_of(part: type) -> tuple[Field[Any], ...]:
    """Return the fields of a part, in order."""
    return fields(part)


def env_of(name: str) -> str:
    """Return the environment variable of a field."""
    return ENV_PREFIX + name.upper()


def flag_of(name: str) -> str:
    """Return the flag of a field."""
    return "--" + name.replace("_", "-")


def check_env(env: Mapping[str, str], known: Sequence[type]) -> None:
    """Raise ConfigError for a BRIGADE_ variable that no part has."""
    names = {env_of(f.name) for part in known for f in settings_of(part)} | {CONFIG_ENV}
    for name in env:
        if name.startswith(ENV_PREFIX) and name not in names:
            raise ConfigError(f"environment variable {name}: unknown setting")


def load(part: type[Part], *, file: SettingsFile | None, env: Mapping[str, str], flags: Mapping[str, str]) -> Part:
    """Make one part from its defaults, then the file, the environment and the flags; the last one that speaks counts.

    `flags` maps field names to the text given on the command line. Raises ConfigError naming source and field.
    """
    hints = typing.get_type_hints(part)
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for setting in settings_of(part):
        found = find(part, setting, file=file, env=env, flags=flags)
        if found is None:
            if setting.default is MISSING:
                ways = f"{flag_of(setting.name)}, {env_of(setting.name)} or {setting.name} in [{section_of(part)}]"
                raise ConfigError(f"{setting.name} is required: set {ways}")
            continue
        source, value = found
        values[setting.name] = _convert(hints[setting.name], value, f"{source}: {setting.name}")
        sources[setting.name] = source
    try:
        return part(**values)
    except ConfigError as error:
        field_name = str(error).split(" ", 1)[0]
        raise ConfigError(f"{sources[field_name]}: {error}" if field_name in sources else str(error)) from None


def find(
    part: type, setting: Field[Any], *, file: SettingsFile | None, env: Mapping[str, str], flags: Mapping[str, str]
) -> tuple[str, object] | None:
    """Return where a field's value stands and the value, from the source that counts most; None leaves its default."""
    name, section = setting.name, section_of(part)
    if name in flags:
        return flag_of(name), flags[name]
    for variable in (env_of(name), setting.metadata.get("env")):
        if variable and variable in env:
            return f"environment variable {variable}", env[variable]
    if file is not None and name in file.tables.get(section, {}):
        return file.place(section, name), file.tables[section][name]
    return None


def _convert(hint: Any, value: object, where: str) -> object:
    """Return `value` as the type that a field declares: text (environment, flags) parsed, TOML values checked."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (item for item in typing.get_args(hint) if item is not type(None))
    choices = _choices(hint)
    if choices:
        if value not in choices:
            raise ConfigError(f"{where} must be one of {', '.join(map(str, choices))}, not {value!r}")
        return choices[choices.index(value)]
    if hint is bool:
        return _convert_bool(value, where)
    if hint is str and isinstance(value, str):
        return value
    if hint in (int, float) and not isinstance(value, bool):
        return _convert_number(hint, value, where)
    raise ConfigError(f"{where} must be {_describe(hint)}, not {value!r}")


def _convert_bool(value: object, where: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise ConfigError(f"{where} must be true or false, not {value!r}")


def _convert_number(hint: type[int] | type[float], value: object, where: str) -> int | float:
    if isinstance(value, str) or (isinstance(value, int | float) and not (hint is int and isinstance(value, float))):
        try:
            number = hint(value)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
    raise ConfigError(f"{where} must be {_describe(hint)}, not {value!r}")


def _describe(hint: type) -> str:
    return {int: "a whole number", float: "a number", str: "text"}.get(hint, str(hint))


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line as a ConfigError, like every other wrong setting."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see {self.prog} --help)")


def make_parser(prog: str, description: str | None = None) -> argparse.ArgumentParser:
    """Return a parser that raises ConfigError and takes no abbreviated flags."""
    return _Parser(prog=prog, description=description, allow_abbrev=False)


def add_flags(parser: argparse.ArgumentParser, parts: Sequence[type], *, fixed: Collection[str] = ()) -> None:
    """Add --config and one flag per field that is not fixed. A name that two parts share is one flag that sets both."""
    parser.add_argument("--config", metavar="FILE", help=f"TOML file with settings [{CONFIG_ENV}]")
    seen: set[str] = set(fixed)
    for part in parts:
        group = parser.add_argument_group(section_of(part))
        hints = typing.get_type_hints(part)
        for setting in settings_of(part):
            if setting.name in seen:
                continue
            seen.add(setting.name)
            default = "required" if setting.default is MISSING else f"default {setting.default}"
            choices = _choices(hints[setting.name])
            metavar = "{" + ",".join(choices) + "}" if choices else setting.name.rsplit("_", 1)[-1].upper()
            help_text = f"{setting.metadata['help']} ({default}) [{env_of(setting.name)}]"
            option = group.add_argument(
                flag_of(setting.name), dest=setting.name, metavar=metavar, default=argparse.SUPPRESS, help=help_text
            )
            if hints[setting.name] is bool:
                option.nargs, option.const = "?", "true"


def _choices(hint: Any) -> tuple[Any, ...]:
    """Return the allowed values of a Literal or an enum of texts; nothing for any other type."""
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    return tuple(hint) if isinstance(hint, type) and issubclass(hint, StrEnum) else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where one process's settings come from: its file, its environment and its flags (field name to text)."""

    file: SettingsFile | None
    env: Mapping[str, str]
    flags: Mapping[str, str]

    @classmethod
    def of(cls, parts: Sequence[type], *, args: argparse.Namespace, env: Mapping[str, str]) -> Sources:
        """Take the flags from parsed arguments (of a parser with `add_flags`). Raises ConfigError for unknown names."""
        known = tuple(dict.fromkeys((*PARTS, *parts)))
        path = args.config or env.get(CONFIG_ENV)
        file = SettingsFile.read(path) if path else None
        if file is not None:
            file.check_sections(known)
        check_env(env, known)
        flags = {name: value for name, value in vars(args).items() if name != "config" and value is not None}
        return cls(file=file, env=env, flags=flags)

    def gives(self, part: type, name: str) -> bool:
        """Whether one of the sources sets this field, so that its default does not count."""
        setting = next(setting for setting in settings_of(part) if setting.name == name)
        return find(part, setting, file=self.file, env=self.env, flags=self.flags) is not None

    def with_flags(self, **flags: str) -> Sources:
        """Return the same sources with more flags, which count most."""
        return replace(self, flags={**self.flags, **flags})

    def load(self, part: type[Part]) -> Part:
        """Make one part. Raises ConfigError naming source and field."""
        return load(part, file=self.file, env=self.env, flags=self.flags)
