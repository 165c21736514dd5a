"""`__all__` of every module is exactly what it defines for others."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [
    path
    for package in ("secagg", "fl_core", "keys", "nodes")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name not in ("__init__.py", "__main__.py")
]


def defined(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield (name, kind) of everything public that the module defines at its top."""
    for node in tree.body:
        names: list[tuple[str, str]] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [(node.name, "function")]
        elif isinstance(node, ast.ClassDef):
            names = [(node.name, "class")]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [(node.target.id, "value")]
        elif isinstance(node, ast.Assign):
            names = [
                (target.id, "value") for target in node.targets if isinstance(target, ast.Name)
            ]
        yield from ((name, kind) for name, kind in names if not name.startswith("_"))


def listed(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
        ):
            value = ast.literal_eval(node.value)
            assert isinstance(value, list | tuple)
            return list(value)
    return None


def imported(tree: ast.Module) -> set[str]:
    """Return the names imported at the top: a module may export them again on purpose."""
    return {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def undeclared(source: str) -> tuple[set[str], set[str]]:
    """Return (listed but not there, public functions and classes that are not listed)."""
    tree = ast.parse(source)
    names, everything = dict(defined(tree)), set(listed(tree) or [])
    callables = {name for name, kind in names.items() if kind != "value"}
    return everything - set(names) - imported(tree), callables - everything


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_all_is_what_the_module_defines(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    names = listed(ast.parse(source))
    if path.parts[-2] == "commands" or path.name in ("version.py", "cli.py"):
        names = names or []  # found by the command line, not imported
        assert not undeclared(source)[0]
        return
    assert names is not None, "the module has no __all__"
    assert len(names) == len(set(names))
    assert undeclared(source) == (set(), set())


def test_a_planted_difference_is_caught() -> None:
    source = '__all__ = ["Missing"]\n\ndef present() -> None: ...\n\nLIMIT = 3\n'
    assert undeclared(source) == ({"Missing"}, {"present"})


@pytest.mark.parametrize("package", ["secagg", "keys"])
def test_a_package_exports_what_it_says(package: str) -> None:
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", []):
        assert hasattr(module, name)
