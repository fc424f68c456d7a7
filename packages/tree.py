"""Makes the file tree of the self-contained packages: the agent with its own Python, C library and loader.

    /usr/bin/python3 packages/tree.py --wheel dist/kata_node_agent-*.whl build/tree

The RPM and the container image are this tree and nothing else. It is made of the Python that runs this script and of the
libraries that this Python and the wheels need, as Debian ships them; so it works on a host of any age. The same inputs
give the same bytes: modules are compiled under the paths that they will have, and nothing records where or when.

Only the standard library is used here. Nothing of this file is in the packages.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import os
import platform
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SOURCE = Path(__file__).resolve().parents[1]
HOME = "usr/lib/kata-node-agent"
DOC = "usr/share/doc/kata-node-agent"
POLICY = "kata_node_agent"
LICENSES = "usr/share/licenses/kata-node-agent"

# What no server program needs. A list of what to leave out, not of what to take: a module that is forgotten here costs
# a few KiB, one that is forgotten in a list of the wanted costs a traceback on somebody's node.
STDLIB_WITHOUT = {
    *("__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "lib2to3", "ensurepip", "venv"),
    *("distutils", "pydoc_data", "dbm", "curses", "xmlrpc", "wsgiref", "dist-packages", "site-packages", "lib-dynload"),
    *("unittest", "doctest.py", "pydoc.py", "antigravity.py", "this.py", "sitecustomize.py", "usercustomize.py"),
}  # fmt: skip
EXTENSIONS_WITHOUT = re.compile(
    r"_test|_xx|xxlimited|_codecs_|_curses|_dbm|_gdbm|_tkinter|_crypt|_lsprof|audioop|nis\.|ossaudiodev|readline|spwd"
)
# cffi is needed to build; its compiled half, _cffi_backend, is what the native module loads.
PACKAGES_WITHOUT = {
    "pip",
    "setuptools",
    "pkg_resources",
    "_distutils_hack",
    "cffi",
    "pycparser",
    "__pycache__",
    "tests",
}
# Of pyroute2 one module is used; these are its largest parts and take no part in that.
PYROUTE2_WITHOUT = {"ndb", "dhcp", "plan9", "bsd", "fixtures", "ethtool", "nftables"}
# Authorities that gRPC's own clients would trust over TLS: of those we have none, and the list would age with the package.
GRPC_WITHOUT = "_credentials"
# What pip records about an installation: paths and dates of the build.
RECORDS = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
# The sources of our own modules go along, for tracebacks that say something; of all else the compiled form does.
WITH_SOURCES = "kata_node_agent"


def main() -> None:
    """Entry point of the script."""
    parser = argparse.ArgumentParser(description="Make the file tree of the self-contained packages.")
    parser.add_argument("--wheel", type=Path, required=True, help="the agent's wheel")
    parser.add_argument("root", type=Path, help="the tree to make; replaced where it exists")
    arguments = parser.parse_args()
    os.umask(0o022)
    shutil.rmtree(arguments.root, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        make(arguments.root, arguments.wheel.resolve(), Path(scratch))


def make(root: Path, wheel: Path, scratch: Path) -> None:
    """Makes the whole tree below ``root``, which does not exist."""
    home = root / HOME
    modules = home / "python"
    copy_stdlib(modules)
    environment = install_wheel(wheel, scratch)
    copy_packages(environment, modules / "packages")
    compile_modules(modules)
    binary = root / "usr/bin/kata-node-agent"
    build_launcher(binary)
    (home / "bin").mkdir()
    (home / "bin/python3").symlink_to("../../../bin/kata-node-agent")
    strip(modules)
    bundled = copy_libraries(home, [binary, *modules.rglob("*.so")])
    copy_host_files(root, environment)
    build_policy(root / "usr/share/kata-node-agent/selinux", scratch)
    copy_licenses(root / LICENSES, bundled)
    say_what_is_bundled(root / DOC, bundled, modules / "packages")


def copy_stdlib(modules: Path) -> None:
    """The standard library of this Python, its compiled modules apart."""
    source = Path(sysconfig.get_path("stdlib"))

    def unwanted(folder: str, names: list[str]) -> set[str]:
        top = Path(folder) == source
        return {
            name
            for name in names
            if name in {"__pycache__", "test", "tests", "idle_test"}
            or (top and (name in STDLIB_WITHOUT or name.startswith(("config-", "_sysconfigdata"))))
            or (not name.endswith(".py") and (Path(folder) / name).is_file())
        }

    shutil.copytree(source, modules / "stdlib", ignore=unwanted)
    extensions = modules / "extensions"
    extensions.mkdir()
    for path in sorted(Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("*.so")):
        if not EXTENSIONS_WITHOUT.match(path.name):
            shutil.copyfile(path, extensions / path.name)


def install_wheel(wheel: Path, scratch: Path) -> Path:
    """An environment with the wheel and, in the versions of constraints.txt, what it depends on."""
    environment = scratch / "environment"
    run(sys.executable, "-m", "venv", str(environment))
    pip = [str(environment / "bin/pip"), "--quiet", "--disable-pip-version-check", "--isolated"]
    run(*pip, "install", "--no-compile", "-c", str(SOURCE / "packages/constraints.txt"), str(wheel))
    return environment


def copy_packages(environment: Path, packages: Path) -> None:
    """The installed packages, without what is only for building."""
    (source,) = environment.glob("lib/python3*/site-packages")

    def unwanted(folder: str, names: list[str]) -> set[str]:
        top = Path(folder) == source
        return {
            name
            for name in names
            if name in RECORDS
            or name in {"__pycache__", "tests"}
            or name.endswith((".pth", ".pyi", ".pyx", ".pxd", ".pxi", ".virtualenv"))
            or (top and name in PACKAGES_WITHOUT)
            or (top and name.startswith(("pip-", "setuptools-")))
            or (Path(folder).name == "pyroute2" and name in PYROUTE2_WITHOUT)
            or name == GRPC_WITHOUT
        }

    shutil.copytree(source, packages, ignore=unwanted)


def compile_modules(modules: Path) -> None:
    """Compiles all modules for the paths that they will have, never to be compared with a source's date."""
    for folder in ("stdlib", "packages"):
        compileall.compile_dir(
            modules / folder,
            maxlevels=40,
            quiet=1,
            legacy=True,
            stripdir=str(modules / folder),
            prependdir=f"/{HOME}/python/{folder}",
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            workers=1,  # the order in which objects are met is part of the bytes
        )
    for source in list(modules.rglob("*.py")):
        compiled = source.with_suffix(".pyc")
        if not compiled.exists():
            raise SystemExit(f"{source} could not be compiled")
        if WITH_SOURCES in source.relative_to(modules).parts:
            cached = Path(importlib.util.cache_from_source(str(source)))
            cached.parent.mkdir(exist_ok=True)
            compiled.rename(cached)
        else:
            source.unlink()


def build_launcher(binary: Path) -> None:
    """Compiles packages/launcher.c with this Python inside, bound to the loader and the libraries of the package."""
    library = libpython()
    if not library.exists():
        raise SystemExit(f"{library} is needed: on Debian, use /usr/bin/python3 and install libpython3-dev")
    binary.parent.mkdir(parents=True)
    run(
        *("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"),
        *("-fPIE", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"),
        f'-DKNA_HOME="/{HOME}"',
        f"-I{sysconfig.get_path('include')}",
        *(str(SOURCE / "packages/launcher.c"), "-o", str(binary), str(library)),
        # DT_RPATH, not DT_RUNPATH: it holds for what libraries need in turn, and before LD_LIBRARY_PATH.
        *("-pie", "-s", "-Wl,--export-dynamic,-Bsymbolic-functions,-z,relro,-z,now,--disable-new-dtags"),
        f"-Wl,-rpath,/{HOME}/lib,--dynamic-linker=/{HOME}/lib/{loader().name}",
        # Never those of the host: not its ld.so.cache, not its /lib64.
        *("-Wl,-z,nodefaultlib", "-Wl,--build-id=sha1"),
        *("-lexpat", "-lz", "-lm"),
    )  # fmt: skip


def libpython() -> Path:
    """The interpreter as a static library, compiled so that the program may lie anywhere in memory (PIE)."""
    return Path(sysconfig.get_config_var("LIBPL"), f"libpython{sysconfig.get_config_var('LDVERSION')}-pic.a")


def strip(modules: Path) -> None:
    """Takes symbols for debuggers out of the compiled modules."""
    for path in sorted(modules.rglob("*.so")):
        run("strip", "--strip-unneeded", str(path))
        path.chmod(0o755)


def loader() -> Path:
    """The dynamic loader of this Python, as its file names it."""
    found = re.search(r"interpreter: (\S+?)\]", run("readelf", "-lW", sys.executable))
    if found is None:
        raise SystemExit(f"{sys.executable} names no loader")
    return Path(found[1])


def copy_libraries(home: Path, binaries: list[Path]) -> dict[str, str]:
    """Copies the loader and all shared libraries that ``binaries`` need, and theirs.

    Returns:
        name of each Debian package that something came from -> its version.
    """
    wanted = {loader().name: loader()}
    places = f"{sysconfig.get_config_var('LIBDIR')}:/lib/{sysconfig.get_config_var('MULTIARCH')}"
    lists = [str(loader()), "--library-path", places, "--list"]
    for binary in binaries:
        for name, path in re.findall(
            r"^\s*(\S+) => (.+?)(?: \(0x.*)?$", run(*lists, str(binary)), re.MULTILINE
        ):
            if path == "not found":
                raise SystemExit(f"{binary} needs {name}, which is not here")
            wanted.setdefault(Path(name).name, Path(path))
    folder = home / "lib"
    folder.mkdir()
    bundled = {}
    for name, path in sorted(wanted.items()):
        shutil.copyfile(path.resolve(), folder / name)
        (folder / name).chmod(0o755)
        package, version = package_of(path)
        bundled[package] = version
    package, version = package_of(libpython())
    bundled[package] = version
    return bundled


def package_of(path: Path) -> tuple[str, str]:
    """Debian's package of a file, and its version."""
    for candidate in {
        path,
        path.resolve(),
        Path("/usr", *path.parts[1:]),
        Path("/", *path.resolve().parts[2:]),
    }:
        done = subprocess.run(
            ["dpkg-query", "-S", str(candidate)], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            name = done.stdout.split(":")[0]
            return name, run("dpkg-query", "-W", "-f=${Version}", name)
    raise SystemExit(f"{path} is of no Debian package: its licence is not known")


def copy_licenses(folder: Path, bundled: dict[str, str]) -> None:
    """Ours, and those of all Debian packages that something is from; the wheels bring theirs in their .dist-info."""
    folder.mkdir(parents=True)
    shutil.copyfile(SOURCE / "LICENSE", folder / "LICENSE")
    for package in bundled:
        shutil.copyfile(
            Path("/usr/share/doc", package, "copyright").resolve(), folder / f"{package}.copyright"
        )
    # Debian's files name the long texts only, which a host of another distribution has not.
    shutil.copytree("/usr/share/common-licenses", folder / "common-licenses", symlinks=True)


def say_what_is_bundled(folder: Path, bundled: dict[str, str], packages: Path) -> None:
    """A list for whoever has to know which OpenSSL is inside."""
    lines = [
        f"Python {platform.python_version()}, and from Debian:",
        *(f"  {n} {v}" for n, v in sorted(bundled.items())),
    ]
    lines.append("From the Python Package Index:")
    lines += sorted(
        "  " + path.name.removesuffix(".dist-info").replace("-", " ") for path in packages.glob("*.dist-info")
    )
    (folder / "bundled.txt").write_text("\n".join(lines) + "\n")


def copy_host_files(root: Path, environment: Path) -> None:
    """What is found in the usual places: manual, completion, documents, examples as the wheel has them; units; settings."""
    shutil.copytree(environment / "share", root / "usr/share")
    systemd = SOURCE / "systemd"
    copy([*systemd.glob("*.service"), *systemd.glob("*.timer")], root / "usr/lib/systemd/system")
    copy(systemd.glob("*.preset"), root / "usr/lib/systemd/system-preset")
    for kind in ("sysusers", "tmpfiles"):
        folder = root / f"usr/lib/{kind}.d"
        folder.mkdir()
        shutil.copyfile(systemd / f"kata-node-agent.{kind}", folder / "kata-node-agent.conf")
    settings = root / "etc/kata-node-agent"
    (settings / "config.toml.d").mkdir(parents=True)
    shutil.copyfile(SOURCE / "packages/config.toml", settings / "config.toml")


def build_policy(folder: Path, scratch: Path) -> None:
    """Compiles the SELinux module that stands in ``folder``, in the form that RHEL 8 still reads (-c 19)."""
    module, package = scratch / f"{POLICY}.mod", folder / f"{POLICY}.pp"
    run("checkmodule", "-M", "-m", "-c", "19", "-o", str(module), str(folder / f"{POLICY}.te"))
    run("semodule_package", "-o", str(package), "-m", str(module), "-f", str(folder / f"{POLICY}.fc"))
    package.chmod(0o644)


def copy(files: Iterable[Path], folder: Path) -> None:
    """Copies files into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(files):
        shutil.copyfile(path, folder / path.name)


def run(*command: str) -> str:
    """Runs a program of the build and gives what it printed; its failure is ours, with its message."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
