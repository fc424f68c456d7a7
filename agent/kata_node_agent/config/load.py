"""Merges the sources of configuration and remembers where each value came from.

Defaults < FILE < FILE.d/*.toml in name order < KATA_NODE_AGENT_* in the environment < flags. An unknown key is an error
with the nearest name that exists: a typo that is silently ignored is found only in an outage.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kata_node_agent.config.schema import Config
from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import AgentError, ConfigError, describe_os_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_FILE = Path("/etc/kata-node-agent/config.toml")
ENV_PREFIX = "KATA_NODE_AGENT_"
# Variables with our prefix that are no settings.
_ENV_OTHERS = {"KATA_NODE_AGENT_CONFIG"}
# What Kubernetes puts into every container for a Service of our name.
_KUBERNETES = re.compile(r"KATA_NODE_AGENT_(SERVICE_(HOST|PORT)|PORT)(_\w+)?")
_MAX_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration and, for each dotted key, where its value came from."""

    config: Config
    origins: Mapping[str, str]

    def items(self) -> Iterator[tuple[str, object, str]]:
        """(dotted key, value, origin) of every setting, in the order of the schema."""
        for key, _ in settings():
            value: object = self.config
            for part in key.split("."):
                value = getattr(value, part)
            yield key, value, self.origins[key]


def settings() -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """(dotted key, field) of every setting there is."""
    for top in dataclasses.fields(Config):
        if "parse" in top.metadata:
            yield top.name, top
        else:
            section: Any = top.default_factory
            for inner in dataclasses.fields(section):
                yield f"{top.name}.{inner.name}", inner


def env_name(key: str) -> str:
    """The environment variable of a setting: ``device_plugin.max_slots`` → ``KATA_NODE_AGENT_DEVICE_PLUGIN_MAX_SLOTS``."""
    return ENV_PREFIX + key.replace(".", "_").upper()


def load(
    file: Path | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Loaded:
    """The configuration from all sources.

    Args:
        file: the file that must be there; ``None``: KATA_NODE_AGENT_CONFIG, else the default one if it is there.
        flags: dotted key → raw value, for the flags that were given.
        environ: the environment.

    Raises:
        ConfigError: a file cannot be read or parsed, a key is unknown, a value does not fit. The message names the source.
    """
    fields = dict(settings())
    raw: dict[str, tuple[object, str]] = {}
    mistakes: list[ConfigError] = []
    for path in configuration_files(file, environ):
        table = _flatten(_read(path), fields, path, mistakes)
        raw |= {key: (value, str(path)) for key, value in table.items()}
    raw |= _environment(environ, fields)
    return _merge({**raw, **_flagged(flags)}, mistakes)


def load_without_files(flags: Mapping[str, object] | None = None) -> Loaded:
    """Defaults and flags alone, for what has to work while the configuration is broken.

    Raises:
        ConfigError: a flag's value does not fit.
    """
    return _merge(_flagged(flags), [])


def _flagged(flags: Mapping[str, object] | None) -> dict[str, tuple[object, str]]:
    return {
        key: (value, f"flag --{key.rpartition('.')[2].replace('_', '-')}")
        for key, value in (flags or {}).items()
    }


def _merge(raw: Mapping[str, tuple[object, str]], mistakes: list[ConfigError]) -> Loaded:
    """Raw values with their origins, parsed and checked together; raises all mistakes at once, earlier ones too."""
    fields = dict(settings())
    values = {}
    for key, (value, origin) in raw.items():
        try:
            values[key] = _parse(key, fields[key], value, origin)
        except ConfigError as error:
            mistakes.append(error)
    if len(mistakes) > 1:
        text = "; ".join(str(mistake) for mistake in mistakes)
        raise ConfigError(f"{len(mistakes)} mistakes: {text}", hint="mend each")
    if mistakes:
        raise mistakes[0]
    config = _build(values)
    try:
        config.validate()
    except ConfigError as error:
        # Say where the key that the message begins with was set.
        origin = raw.get(error.message.partition(" ")[0], (None, ""))[1]
        raise ConfigError(
            f"{origin}: {error.message}" if origin else error.message, hint=error.hint
        ) from None
    return Loaded(config, {key: raw[key][1] if key in raw else "default" for key in fields})


def keep_restart_only(present: Loaded, new: Loaded) -> tuple[Loaded, list[str]]:
    """What a reload puts in force: ``new``, but for settings that only a restart can change.

    Returns:
        the configuration, and the keys that differ and wait for a restart.
    """
    fields = dict(settings())
    before = {key: (value, origin) for key, value, origin in present.items()}
    values, origins, waiting = {}, {}, []
    for key, value, origin in new.items():
        if fields[key].metadata["live"] or value == before[key][0]:
            values[key], origins[key] = value, origin
        else:
            waiting.append(key)
            values[key], origins[key] = before[key]
    return Loaded(_build(values), origins), waiting


def changes(before: Loaded, after: Loaded) -> list[str]:
    """What is another value, as ``key=value``, for the log."""
    had = {key: value for key, value, _ in before.items()}
    return [f"{key}={value}" for key, value, _ in after.items() if value != had[key]]


def configuration_files(file: Path | None, environ: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """The files that `load` reads, in its order.

    Raises:
        ConfigError: the folder of drop-ins cannot be read.
    """
    return _files(
        file or (Path(environ["KATA_NODE_AGENT_CONFIG"]) if environ.get("KATA_NODE_AGENT_CONFIG") else None)
    )


def _files(file: Path | None) -> Iterator[Path]:
    main = DEFAULT_FILE if file is None else file
    if file is not None or os.path.exists(main):
        yield main
    drop_ins = main.with_name(main.name + ".d")
    try:
        yield from sorted(
            path for path in drop_ins.iterdir() if path.suffix == ".toml" and not path.name.startswith(".")
        )
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ConfigError(
            f"{drop_ins}: {describe_os_error(error)}", hint="make the folder readable, or remove it"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        # O_NONBLOCK: a FIFO at the path must not hang us.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ConfigError(f"{path}: not a regular file", hint="give the path of a TOML file")
            content = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        hint = "give the path of a TOML file with --config, or leave --config out for the defaults"
        raise ConfigError(f"{path}: {describe_os_error(error)}", hint=hint) from error
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigError(
            f"{path}: larger than {_MAX_FILE_BYTES} bytes", hint="this is no configuration of ours"
        )
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        # TOML's and UTF-8's errors are values' errors, as is a number of more digits than Python converts.
        raise ConfigError(
            f"{path}: not TOML: {error}", hint="`kata-node-agent config show` prints a valid file"
        ) from error


def _nearest(key: str, names: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else "`kata-node-agent config show` lists all keys"


def _flatten(
    table: dict[str, Any], fields: Mapping[str, object], path: Path, mistakes: list[ConfigError]
) -> dict[str, object]:
    """Dotted keys of a parsed file. A section that is no section, and a key that does not exist, are mistakes."""
    sections = {key.partition(".")[0] for key in fields if "." in key}
    flat: dict[str, object] = {}
    for name, value in table.items():
        if name in sections:
            if not isinstance(value, dict):
                mistakes.append(
                    ConfigError(
                        f"{path}: {name} is a section, not a value", hint=f"write [{name}] above its keys"
                    )
                )
                continue
            flat |= {f"{name}.{inner}": inner_value for inner, inner_value in value.items()}
        else:
            flat[name] = value
    mistakes += [
        ConfigError(f"{path}: unknown key {key}", hint=_nearest(key, [*fields, *sections]))
        for key in flat
        if key not in fields
    ]
    return {key: value for key, value in flat.items() if key in fields}


def _environment(environ: Mapping[str, str], fields: Mapping[str, object]) -> dict[str, tuple[object, str]]:
    by_name = {env_name(key): key for key in fields}
    found: dict[str, tuple[object, str]] = {}
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX) and name not in _ENV_OTHERS and not _KUBERNETES.fullmatch(name):
            if name not in by_name:
                raise ConfigError(f"environment: unknown variable {name}", hint=_nearest(name, list(by_name)))
            found[by_name[name]] = (environ[name], f"environment {name}")
    return found


def _parse(key: str, field: dataclasses.Field[Any], value: object, origin: str) -> object:
    try:
        return field.metadata["parse"](value)
    except AgentError as error:
        hint = error.hint or f"give a value that fits; {key} sets: {field.metadata['doc']}"
        raise ConfigError(f"{origin}: {key}: {error.message}", hint=hint) from error


def _build(values: Mapping[str, object]) -> Config:
    arguments: dict[str, Any] = {}
    for top in dataclasses.fields(Config):
        if "parse" in top.metadata:
            if top.name in values:
                arguments[top.name] = values[top.name]
        else:
            section: Any = top.default_factory
            prefix = top.name + "."
            given = {
                key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)
            }
            arguments[top.name] = section(**given)
    return Config(**arguments)
