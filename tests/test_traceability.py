"""Every requirement has a test and code that cites it; every number that is cited is defined."""

from __future__ import annotations

import ast
import functools
import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPECS = sorted((ROOT / "specs").glob("*.md"))
CODE = [
    path
    for package in ("secagg", "fl_core", "keys", "nodes", "tests", "bench")
    for path in sorted((ROOT / package).rglob("*.py"))
]
OBEYING = ("secagg", "fl_core", "keys", "nodes")
"""The packages whose code cites what it obeys."""
CLAIMS = {"T": "each sums up requirements of other specifications, which it names and code cites"}
"""Letter of requirements that no single line can obey, and why."""
MEASURED = {"L-68": ("bench/detection_speed.py", "a budget of time is measured, not obeyed")}
"""Requirement to the script of bench that says whether it is met, and why no package cites it."""
NUMBER = r"[A-Z]-[0-9]{2}"
DEFINITION = re.compile(rf"^\s*(?:[-*]\s+)?\*\*({NUMBER})\*\*(?P<text>.*)", re.MULTILINE)
CITATION = re.compile(rf"(?<![A-Za-z0-9-]){NUMBER}(?![A-Za-z0-9-])")
RANGE = re.compile(rf"({NUMBER})\s*(?:to|…|–|-)\s*({NUMBER})")


def definitions(text: str) -> dict[str, str]:
    """Return number to the first line of each requirement that a specification defines."""
    found: dict[str, str] = {}
    for match in DEFINITION.finditer(text):
        assert match[1] not in found, f"{match[1]} is defined twice"
        found[match[1]] = match["text"]
    return found


def withdrawn(requirement: str) -> bool:
    return requirement.lstrip().startswith("(withdrawn)")


def spread(text: str) -> set[str]:
    """Return every number in `text`, those inside ranges such as "W-02 to W-04" included."""
    numbers = set(CITATION.findall(text))
    for low, high in RANGE.findall(text):
        if low[0] == high[0]:
            numbers |= {f"{low[0]}-{index:02d}" for index in range(int(low[2:]), int(high[2:]))}
    return numbers


def carried(source: str) -> Iterator[str]:
    """Yield the numbers in `pytest.mark.req(…)` decorators of tests and in `pytestmark`."""
    for node in ast.walk(ast.parse(source)):
        marks: list[ast.AST] = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            marks = [*node.decorator_list] if node.name.lower().startswith("test") else []
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            marks = [*ast.walk(node.value)]
        for mark in marks:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith("mark.req"):
                for argument in mark.args:
                    assert isinstance(argument, ast.Constant)
                    yield str(argument.value)


def whole(text: str, number: str) -> str:
    """Return all of a requirement: its first line and the indented ones below it."""
    _, _, rest = text.partition(f"**{number}**")
    first, *lines = rest.split("\n")
    return "\n".join((first, *itertools.takewhile(lambda line: line.startswith(" "), lines)))


def citations(source: str) -> Iterator[str]:
    """Yield the numbers in comments and in docstrings.

    Other strings name rules, as the table of attacks does, and obey none.
    """
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from CITATION.findall(token.string)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield from CITATION.findall(str(node.value.value))


@functools.cache
def all_cited() -> frozenset[str]:
    """Return every number that code cites where it obeys it."""
    paths = [path for path in CODE if path.relative_to(ROOT).parts[0] in OBEYING]
    return frozenset(
        number for path in paths for number in citations(path.read_text(encoding="utf-8"))
    )


def all_definitions() -> dict[str, str]:
    found: dict[str, str] = {}
    for spec in SPECS:
        for number, text in definitions(spec.read_text(encoding="utf-8")).items():
            assert number not in found, f"{number} is defined in two specifications"
            found[number] = text
    return found


@functools.cache
def all_carried() -> frozenset[str]:
    """Return every number that some test carries."""
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    return frozenset(
        number for path in paths for number in carried(path.read_text(encoding="utf-8"))
    )


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.name)
def test_every_requirement_has_a_test(spec: Path) -> None:
    wanted = definitions(spec.read_text(encoding="utf-8"))
    missing = {number for number, text in wanted.items() if not withdrawn(text)} - all_carried()
    assert not missing, f"no test carries {sorted(missing)}"


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.name)
def test_every_requirement_is_cited_where_it_is_obeyed(spec: Path) -> None:
    wanted = definitions(spec.read_text(encoding="utf-8"))
    missing = {
        number
        for number, text in wanted.items()
        if not withdrawn(text) and number[0] not in CLAIMS and number not in MEASURED
    } - all_cited()
    assert not missing, f"no code cites {sorted(missing)}"


def test_what_no_line_obeys_is_not_cited_and_is_met_otherwise() -> None:
    claims = {number for number in all_definitions() if number[0] in CLAIMS}
    assert {number[0] for number in claims} == set(CLAIMS)
    assert not all_cited() & (claims | set(MEASURED)), "cited, so no exception any more"
    for spec in SPECS:
        text = spec.read_text(encoding="utf-8")
        for number in claims & set(definitions(text)):
            parts = spread(whole(text, number)) - claims
            assert parts, f"{number} does not say what makes it hold"
            assert parts <= all_cited()
    assert set(MEASURED) <= set(all_definitions())
    for number, (script, _) in MEASURED.items():
        assert number in citations((ROOT / script).read_text(encoding="utf-8"))


def test_every_cited_number_is_defined() -> None:
    known = set(all_definitions())
    undefined: dict[str, set[str]] = {}
    for path in [*CODE, *SPECS]:
        if path == Path(__file__):
            continue
        cited = set(CITATION.findall(path.read_text(encoding="utf-8")))
        if cited - known:
            undefined[path.relative_to(ROOT).as_posix()] = cited - known
    assert not undefined


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.name)
def test_where_in_code_names_every_requirement_and_only_files_there_are(spec: Path) -> None:
    text = spec.read_text(encoding="utf-8")
    wanted = {number for number, line in definitions(text).items() if not withdrawn(line)}
    if not wanted:
        return
    _, found, section = text.partition("Where in code")
    assert found, "the specification does not say where in code"
    if spread(section) & wanted:  # else its table goes by section
        assert not wanted - spread(section)
    for name in re.findall(r"`([\w/.]+\.py)`", text):
        folders = [
            ROOT,
            *(ROOT / Path(other).parent for other in re.findall(r"`([\w/.]+\.py)`", section)),
        ]
        assert any((folder / name).is_file() for folder in folders), f"{name} is not there"


def test_the_parsers_see_what_they_should() -> None:
    text = "- **M-07** The seed MUST be.\n**K-01** x\n  - **E-01** (withdrawn) y\nsee **M-08**\n"
    found = definitions(text)
    assert set(found) == {"M-07", "K-01", "E-01"}
    assert withdrawn(found["E-01"])
    assert not withdrawn(found["M-07"])
    assert spread("W-02 to W-04, F-30 … F-32; M-01") == {
        *(f"W-0{i}" for i in (2, 3, 4)),
        *(f"F-3{i}" for i in (0, 1, 2)),
        "M-01",
    }
    assert whole("- **M-07** a\n  b\n- **M-08** c\n", "M-07") == " a\n  b"
    source = '"""M-01."""\nx = 1  # M-02: why\n"""(M-03)"""\ny = "M-04"\nz = ("M-05",)\n'
    assert sorted(citations(source)) == ["M-01", "M-02", "M-03"]
    source = (
        "import pytest\npytestmark = [pytest.mark.req('A-01')]\n"
        "@pytest.mark.req('B-02', 'B-03')\ndef test_x(): ...\n"
        "@pytest.mark.req('C-01')\ndef helper(): ...\n"
    )
    assert sorted(carried(source)) == ["A-01", "B-02", "B-03"]
    assert CITATION.findall("as SHA-256, X-1, RFC-2119 and T-800 say; (M-07), M-08.") == [
        "M-07",
        "M-08",
    ]


def test_a_number_defined_twice_is_caught() -> None:
    with pytest.raises(AssertionError, match="twice"):
        definitions("- **M-07** a\n- **M-07** b\n")
