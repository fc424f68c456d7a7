"""The reasons that a problem in `status` may have, as they stand in the code."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kata_node_agent import errors
from tests.docs.commands import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = ROOT / "agent" / "kata_node_agent"
# Where a problem has the reason of an error: which files raise it. Checks have pages of their own (docs/checks.md).
FROM_ERRORS = {
    "daemon/agent.py": ["api/server.py", "sockets.py"],
    "daemon/features.py": ["publish/nfd/files.py"],
    "daemon/web.py": ["publish/tls.py", "publish/listener.py", "sockets.py"],
    "daemon/account_problems.py": ["ledger/store.py", "ledger/writer.py"],
    "daemon/sandboxes.py": ["sandboxes/blind.py"],
    "daemon/node.py": ["nodeconfig/kubelet.py", "nodeconfig/validate.py"],
    "daemon/status.py": [],
}
# Only `kata-node-agent label` fails by it: a running agent waits for the folder.
OF_COMMANDS = {"NfdNotInstalled"}


def problem_reasons() -> dict[str, str]:
    """Each with the file that it is in.

    Raises:
        AssertionError: a problem gets its reason from somewhere that `FROM_ERRORS` does not name.
    """
    found: dict[str, str] = {}
    for path in sorted((PACKAGE / "daemon").glob("*.py")):
        name = str(path.relative_to(PACKAGE))
        for call in _calls(path, "Problem"):
            if _is_of_protocol(call):
                continue
            if isinstance(first := call.args[0], ast.Constant):
                found[str(first.value)] = name
            else:
                assert name in FROM_ERRORS, f"{name}:{call.lineno}: whose reasons are these?"
    for raisers in FROM_ERRORS.values():
        for raiser in raisers:
            found.update(dict.fromkeys(_of_errors(PACKAGE / raiser), raiser))
    return {reason: name for reason, name in found.items() if reason not in OF_COMMANDS}


def _calls(path: Path, function: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == function or (function == "*Error" and name.endswith("Error")):
                yield node


def _is_of_protocol(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute)


def _of_errors(path: Path) -> Iterator[str]:
    """What errors are raised there: by their class, or as it says; and complaints."""
    classes = {
        node.name: ast.literal_eval(item.value)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == "reason"
    }
    for call in _calls(path, "*Error"):
        given = [word.value for word in call.keywords if word.arg == "reason"]
        if given:
            yield from (
                n.value
                for n in ast.walk(given[0])
                if isinstance(n, ast.Constant) and isinstance(n.value, str)
            )
            continue
        name = getattr(call.func, "id", "")
        error = getattr(errors, name, None)
        if name in classes:
            yield classes[name]
        elif error is not None:
            yield error.reason
    for call in _calls(path, "Complaint"):
        yield from (str(a.value) for a in call.args[:1] if isinstance(a, ast.Constant))
