"""Who may import whom, read from the syntax trees; and how long a module may be."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("secagg", "fl_core", "keys", "nodes")
MAY_IMPORT = {
    "secagg": {"secagg"},
    "fl_core": {"fl_core"},
    "keys": {"keys", "secagg"},
    "nodes": set(PACKAGES),
}
SANS_IO = {
    "asyncio", "datetime", "multiprocessing", "os", "random", "secrets", "select", "selectors",
    "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time", "zmq",
}  # fmt: skip
UNSAFE_FORMATS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
MAX_LINES = 500
LAYERS = (
    ("secagg/version.py", "secagg/errors.py"),
    ("secagg/types.py", "secagg/tags.py", "secagg/tails.py", "secagg/assumptions.py"),
    ("secagg/ring.py", "secagg/primitives/", "secagg/wire/fields.py"),
    ("secagg/ckks/seal.py", "secagg/ckks/headroom.py", "secagg/ckks/committees.py"),
    ("secagg/ckks/parameters.py",),
    ("secagg/round_setup.py",),
    ("secagg/encoding.py", "secagg/wire/round_messages.py", "secagg/relay.py"),
    ("secagg/dp/",),
    ("secagg/wire/messages.py",),
    ("secagg/wire/codec.py", "secagg/steps.py", "secagg/uploads.py"),
    ("secagg/wire/envelope.py", "secagg/roles.py", "secagg/insecure_plain.py"),
    ("secagg/phases.py",),
    ("secagg/masking/", "secagg/ckks/"),
    ("secagg/masking/parameters.py", "secagg/masking/recovery.py"),
    ("secagg/masking/client.py", "secagg/masking/coordinator.py"),
    ("secagg/ckks/views.py",),
    ("secagg/ckks/member.py", "secagg/ckks/opening.py", "secagg/ckks/uploads.py"),
    ("secagg/ckks/client.py", "secagg/ckks/coordinator.py"),
    ("secagg/schemes.py",),
)
"""secagg from the bottom up; a module imports its own layer and those below."""


def modules(*packages: str) -> Iterator[tuple[str, str]]:
    """Yield (path relative to the repository, source) of every module."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


@functools.cache
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


@functools.cache
def imports(source: str, *, at_runtime: bool = False) -> frozenset[str]:
    """Return the dotted names that a module imports anywhere, also inside functions."""
    tree = parsed(source)
    skipped: set[int] = set()
    if at_runtime:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                skipped |= {id(inner) for inner in ast.walk(node)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                names.add("." * node.level)
            else:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def roots(source: str) -> set[str]:
    return {name.split(".")[0] for name in imports(source)}


def foreign(path: str, source: str) -> set[str]:
    """Packages of ours that this module must not import."""
    return roots(source) & set(PACKAGES) - MAY_IMPORT[path.split("/")[0]]


def relative(path: str, source: str) -> set[str]:
    return {name for name in imports(source) if name.startswith(".")}


def only_in(name: str, *places: str) -> Callable[[str, str], set[str]]:
    """Return a rule: `name` is imported under `places` only."""

    def rule(path: str, source: str) -> set[str]:
        return set() if path.startswith(places) else roots(source) & {name}

    return rule


def sans_io(path: str, source: str) -> set[str]:
    inside = path.startswith(("secagg/", "nodes/session/"))
    memory = {"os"} if path == "secagg/ckks/seal.py" else set()  # memfd_create: nothing on a disk
    return roots(source) & SANS_IO - memory if inside else set()


def unsafe_format(path: str, source: str) -> set[str]:
    """Modules and options that run code found in data."""
    found = roots(source) & UNSAFE_FORMATS
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found |= {"allow_pickle"} - ({"allow_pickle"} if _is_false(node.value) else set())
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "eval", "exec"):
            found.add(ast.unparse(node.func))
    return found


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def global_randomness(path: str, source: str) -> set[str]:
    """Uses of a random state that a whole process shares."""
    found = roots(source) & {"random"}
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if text in ("torch.manual_seed", "np.random.seed", "np.random.rand", "np.random.randn"):
                found.add(text)
    return found


RULES: dict[str, Callable[[str, str], set[str]]] = {
    "packages": foreign,
    "absolute imports": relative,
    "zmq": only_in("zmq", "nodes/transport.py", "nodes/loop.py"),
    "click": only_in("click", "nodes/cli.py", "nodes/commands/"),
    "rich": only_in("rich", "nodes/"),
    "torch": only_in("torch", "fl_core/", "nodes/learner.py"),
    "tenseal": only_in("tenseal", "secagg/ckks/seal.py"),
    "zstandard": only_in("zstandard", "secagg/ckks/seal.py"),
    "sans-IO": sans_io,
    "no code in data": unsafe_format,
    "no global randomness": global_randomness,
}


@pytest.mark.parametrize("rule", RULES)
def test_no_module_breaks_the_rule(rule: str) -> None:
    broken = {
        path: found for path, source in modules(*PACKAGES) if (found := RULES[rule](path, source))
    }
    assert not broken


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        ("packages", "fl_core/x.py", "import secagg.types"),
        ("packages", "secagg/x.py", "from nodes.config import NodeConfig"),
        ("packages", "keys/x.py", "def f() -> None:\n    import fl_core"),
        ("absolute imports", "keys/x.py", "from . import names"),
        ("zmq", "nodes/session/x.py", "import zmq"),
        ("zmq", "nodes/node_daemon.py", "from zmq.utils import z85"),
        ("click", "nodes/demo.py", "import click"),
        ("rich", "fl_core/x.py", "import rich.table"),
        ("torch", "nodes/demo.py", "from torch import Tensor"),
        ("sans-IO", "secagg/x.py", "from os import urandom"),
        ("sans-IO", "nodes/session/x.py", "import time as clock"),
        ("no code in data", "fl_core/x.py", "import pickle"),
        ("no code in data", "fl_core/x.py", "np.load(path, allow_pickle=True)"),
        ("no code in data", "fl_core/x.py", "torch.load(path)"),
        ("no global randomness", "fl_core/x.py", "np.random.seed(1)"),
    ],
)
def test_a_planted_violation_is_caught(rule: str, path: str, source: str) -> None:
    assert RULES[rule](path, source)


def test_what_is_allowed_passes() -> None:
    source = "from secagg.types import NodeId\nimport numpy as np\nnp.random.default_rng(1)\n"
    assert not any(rule("keys/x.py", source) for rule in RULES.values())


def layer_of(path: str) -> int | None:
    """Return the layer, that of the longest matching entry."""
    fits = [(len(e), i) for i, layer in enumerate(LAYERS) for e in layer if path.startswith(e)]
    return max(fits)[1] if fits else None


def test_secagg_imports_downwards_only() -> None:
    known = dict(modules("secagg"))
    broken = []
    for path, source in known.items():
        mine = layer_of(path)
        if path.endswith("__init__.py"):
            continue
        assert mine is not None, f"{path} has no layer: add it to LAYERS"
        for name in imports(source, at_runtime=True):
            parts = name.split(".")
            for target in ("/".join(parts) + ".py", "/".join(parts[:-1]) + ".py"):
                theirs = layer_of(target) if target in known else None
                if theirs is not None and theirs > mine:
                    broken.append((path, target))
    assert not broken


def test_no_module_has_outgrown_itself() -> None:
    lengths = {path: len(source.splitlines()) for path, source in modules(*PACKAGES)}
    assert not {path: lines for path, lines in lengths.items() if lines > MAX_LINES}
