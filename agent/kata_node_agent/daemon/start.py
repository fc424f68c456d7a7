"""From a command line to a running agent: configuration, log, then what is large, in this order."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import os
import sys
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kata_node_agent.config.load import load
from kata_node_agent.daemon import logs
from kata_node_agent.eligibility import check_policy
from kata_node_agent.errors import ConfigError, describe_os_error
from kata_node_agent.packages import load_late

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from kata_node_agent.config.load import Loaded

# By then all parts run, and what they load is loaded.
_SETTLED_SECONDS = 3.0
# When freed memory is given back: after that, when the costs of many VMs have been read, and then again and again.
_GIVE_BACK_AFTER_SECONDS = (4.0, 8.0)
_GIVE_BACK_EVERY_SECONDS = 60.0
# Objects made between two collections; usually 700.
_STARTING_THRESHOLD = 10_000
# By the numbers of <linux/capability.h>. SYS_PTRACE (19): maps, smaps and namespaces of VMs and runtimes in /proc. The
# folders of Kata, the runtime and kubelet are root's, so no right to others' files is needed.
_KEPT_CAPABILITIES = (19,)


def load_valid(config_file: Path | None, flags: Mapping[str, object]) -> Loaded:
    """The configuration, with paths, profile and names of checks looked at too.

    Raises:
        ConfigError: it cannot be used as written.
    """
    loaded = load(config_file, flags=flags)
    _refuse_relative_paths(loaded)
    policy = loaded.config.eligibility
    profile = policy.chosen_profile
    parts: dict[str, dict[str, Any]] = {
        "profile": {"profile": profile},
        "require": {"profile": None, "require": policy.require},
        "waive": {"profile": None, "waive": policy.waive},
    }
    for key, names in parts.items():
        try:
            check_policy(**names)
        except ConfigError as error:
            where = f"{loaded.origins[f'eligibility.{key}']}: eligibility.{key}"
            raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
    check_policy(profile=profile, require=policy.require, waive=policy.waive)
    return loaded


def _refuse_relative_paths(loaded: Loaded) -> None:
    """A path in a file is relative to nothing, and what the daemon makes must be where others look for it."""
    for key, value, origin in loaded.items():
        ours = key in {"run_dir", "state_dir", "device_plugin.directory"}
        if isinstance(value, Path) and not value.is_absolute() and (ours or not origin.startswith("flag ")):
            raise ConfigError(f"{origin}: {key} = {value}: not an absolute path", hint="begin it with a /")


def _asyncio() -> ModuleType:
    """The event loop without OpenSSL, which it loads and we never use through it: 4 MiB less on every node.

    asyncio is made to work in a Python without ssl; who needs that module later imports it as ever.
    """
    if "asyncio" not in sys.modules and "ssl" not in sys.modules:
        sys.modules["ssl"] = None  # type: ignore[assignment]
        try:
            return importlib.import_module("asyncio")
        finally:
            del sys.modules["ssl"]
    return importlib.import_module("asyncio")


def _settle(threshold: tuple[int, int, int]) -> None:
    """What was made until here stays, without the waste of making it: the collector need not walk it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*threshold)


async def _give_back() -> None:
    """Looks at many VMs leave holes in the heap: with 500 of them 3 MiB, once they are known."""
    import asyncio

    from kata_node_agent.daemon.threads import in_thread
    from kata_node_agent.host import native

    for seconds in chain(_GIVE_BACK_AFTER_SECONDS, repeat(_GIVE_BACK_EVERY_SECONDS)):
        await asyncio.sleep(seconds)
        await in_thread(native.give_back_memory)


def _drop_capabilities() -> None:
    from kata_node_agent.host import native

    try:
        native.keep_capabilities(_KEPT_CAPABILITIES)
    except OSError as error:
        raise ConfigError(
            f"drop_capabilities: {describe_os_error(error)}", hint="set drop_capabilities = false"
        ) from None


def start(config_file: Path | None, flags: Mapping[str, object]) -> None:
    """Runs the agent until it is told to end.

    Args:
        config_file: as given; ``None`` for the default one.
        flags: dotted key → raw value, for the flags that were given.

    Raises:
        AgentError: it cannot start, or cannot go on; see `Agent.run`.
    """
    # Nearly all that is made from here on stays, and the collector would walk it again and again. Not never: what does not
    # stay (each class with slots is made twice) would take half a MiB for good.
    usual = gc.get_threshold()
    gc.set_threshold(_STARTING_THRESHOLD, *usual[1:])
    loaded = load_valid(config_file, flags)
    logs.set_up(loaded.config.log_level)
    if loaded.config.drop_capabilities:
        # Before there is any other thread, which would keep its own.
        _drop_capabilities()
    # systemd's watchdog ends us with SIGABRT: the log then tells where each thread was.
    faulthandler.enable()
    # Said by us, in words for people; gRPC's own lines would come on top. Must stand before the library is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    asyncio = _asyncio()
    # The protobuf library's way without its C code, and the text format with it: imported by every generated module, and not
    # used where the C code is. 1.2 MiB and a twentieth of the start.
    load_late("google.protobuf.internal.python_message")
    from kata_node_agent.daemon.agent import Agent

    async def run() -> None:
        asyncio.get_running_loop().call_later(_SETTLED_SECONDS, _settle, usual)
        giving = asyncio.create_task(_give_back())
        try:
            await Agent(loaded, lambda: load_valid(config_file, flags)).run()
        finally:
            giving.cancel()

    asyncio.run(run())
