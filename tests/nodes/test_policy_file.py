"""policy.toml: lines are found in any TOML, and what cannot be meant is refused with its line."""

from __future__ import annotations

import json
import random
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from nodes.config import NodeConfig, load_node_config
from nodes.policy_file import _RANGES, PolicySection, load_policy, origin_of, to_policy
from nodes.session.policy import _RULES, NodePolicy, PolicyOrigin
from nodes.templates import field_notes, node_toml, policy_toml
from nodes.toml_files import key_lines, parse_settings
from secagg.errors import ConfigError

NODE = {"node": {"keys": "k", "state": "s", "coordinator": "tcp://h:1"}, "data": {"source": "d"}}
FULL = {
    "min_cohort": 10,
    "schemes": ("ckks",),
    "weights": ("private", "coordinator"),
    "collusion": 0.25,
    "require": "record",
    "epsilon": 4.0,
    "delta": 1e-6,
    "architectures": ("AB" * 32,),
    "max_learning_rate": 0.01,
    "max_steps": 100,
    "min_difference": 4,
    "max_rounds_a_day": 48,
}
AWKWARD = '''\
# min_cohort = 99 in a comment, [policy] too
  "min_cohort"   =   5   # trailing = comment
schemes = [   # the array
  "ckks",  # "]" and 'weights = [' in a comment

  """masking""",
]

'weights' = ["private"]\tepsilon_is_not_here
\tdelta = 1e-5
require = \'\'\'
client\'\'\'
epsilon = 8
'''


def written(folder: Path, text: str, name: str = "policy.toml") -> Path:
    path = folder / name
    path.write_text(text, newline="")
    return path


@pytest.mark.req("G-02")
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_lines_are_those_an_editor_shows_in_awkward_toml(tmp_path: Path, line_end: str) -> None:
    text = AWKWARD.replace("\tepsilon_is_not_here", "").replace("\n", line_end)
    expected = {
        "min_cohort": 2,
        "schemes": 3,
        "weights": 9,
        "delta": 10,
        "require": 11,
        "epsilon": 13,
    }
    assert origin_of("policy.toml", text).lines == expected
    for key, line in expected.items():
        assert text.split("\n")[line - 1].strip().strip("\"'").startswith(key)
    section, origin = load_policy(written(tmp_path, text))
    assert section.schemes == ("ckks", "masking")
    assert origin.lines == expected


@pytest.mark.req("G-02")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[policy]\n\nmin_cohort = 5", 3),
        ("policy.min_cohort = 5\n[node]\n", 1),
        ("[x]\n \t[policy]\n  min_cohort = 5", 3),
        ("[policy]\nmin_cohort = 5\n[x.policy]\nmin_cohort = 6", 2),
        ("[node]\nx = 1\n[data]\n[ 'policy' ] # here\n# there\nmin_cohort=5\n[unlock]\n", 6),
        ('x = """\n[policy]\nmin_cohort = 1\n"""\n[policy]\nmin_cohort = 5', 6),
        ('x = "\\"[policy]"\n\n"policy"."min_cohort" = 5', 3),
        ("x = [\n[1,\n2],\n['policy.min_cohort = 5\\n']\n]\npolicy = {min_cohort = 5}", 6),
        ("[[x]]\nmin_cohort = 1\n[[x]]\n[x.policy]\nmin_cohort = 2\n[policy]\nmin_cohort = 5", 7),
        ("[policy.inner]\nmin_cohort = 1\n[policy]\nmin_cohort = 5", 4),
        ("a = '''\\'''\n[policy]\nmin_cohort = 5", 3),
        ("a = ''''quoted''''\nb = \"\"\"\\\n  \"\"\"\n[policy]\nmin_cohort = 5", 5),
        ("# \u2028 \x85 \f no line ends\n".replace("\f", "") + "[policy]\nmin_cohort = 5", 3),
    ],
)
def test_a_key_of_the_table_is_found_however_it_is_spelt(text: str, line: int) -> None:
    assert tomllib.loads(text)["policy"]["min_cohort"] == 5
    assert origin_of("node.toml", text, "policy").lines == {"min_cohort": line}


def paths(values: dict[str, object], above: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    found = set()
    for key, value in values.items():
        found.add((*above, key))
        if isinstance(value, dict):
            found |= paths(value, (*above, key))
    return found


@pytest.mark.req("G-02")
def test_in_any_document_exactly_the_keys_are_found_each_where_it_was_put() -> None:
    rng = random.Random(56)
    values = [
        "1", "'#'", '"]["', "[1, 2]", "[\n1, # [\n2\n]", '"""\n[t]\nk = 1\n"""', "'''\n'''",
        "{a = 1, b = {c = [2]}}", "nan", "1979-05-27 07:32:00", "[[\n],\n[\n]]", '"\\""',
    ]  # fmt: skip
    quotes: list[Callable[[str], str]] = [str, repr, lambda key: f'"{key}"']
    for _ in range(300):
        text = ""
        expected: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        for index in range(rng.randrange(1, 12)):
            text += rng.choice(["", "\n", "# x = [\n", "  \n\t\n"])
            line = text.count("\n") + 1
            if rng.random() < 0.3:
                table = tuple(f"t{index}{depth}" for depth in range(rng.randrange(1, 3)))
                text += "[" + " . ".join(rng.choice(quotes)(part) for part in table) + "]"
                expected |= {table[: depth + 1]: line for depth in range(len(table))}
            else:
                key = tuple(f"k{index}{depth}" for depth in range(rng.randrange(1, 3)))
                value = rng.choice(values)
                text += ".".join(rng.choice(quotes)(part) for part in key) + f" = {value}"
                inner = paths(tomllib.loads(f"x = {value}"))
                expected |= {(*table, *key[: depth + 1]): line for depth in range(len(key))}
                expected |= {(*table, *key, *path[1:]): line for path in inner}
            text += rng.choice(["", " ", "  # end = 1"]) + "\n"
        found = key_lines(text)
        assert found == expected, text
        assert set(found) == paths(tomllib.loads(text))


def test_a_long_list_is_read_in_time_and_text_that_is_no_toml_is_an_error() -> None:
    many = "architectures = [\n" + f'"{"ab" * 32}",\n' * 100 + "]\nmin_cohort = 4\n"
    assert key_lines(many)["min_cohort",] == 103
    for text in ("a = [\n1,", "a = 1\n= 2\n", 'a = """\n', "a = 1 b = 2"):
        with pytest.raises(tomllib.TOMLDecodeError):
            key_lines(text)


@pytest.mark.req("G-03")
def test_a_written_policy_reads_back_and_explains_every_setting(tmp_path: Path) -> None:
    path = written(tmp_path, policy_toml({}))
    assert to_policy(*load_policy(path)) == NodePolicy()
    path = written(tmp_path, policy_toml(FULL))
    policy = to_policy(*load_policy(path))
    assert policy == NodePolicy(**{**FULL, "architectures": ("ab" * 32,)})  # type: ignore[arg-type]
    assert set(policy.origin.lines) == set(FULL) == set(field_notes(PolicySection))
    text = path.read_text().split("\n")
    for key, line in policy.origin.lines.items():
        assert text[line - 1].startswith(f"{key} = ")
        assert text[line - 2].startswith("# ")


@pytest.mark.req("G-03")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\nmin_cohort = 2", "line 2: min_cohort is 2"),
        ("min_cohort = 10001", "line 1: min_cohort is 10001"),
        ("\n\nmin_cohrt = 5", "line 3: min_cohrt is not a setting; did you mean min_cohort?"),
        ("[policy]\nmin_cohort = 5", "line 1: policy is not a setting"),
        ("min_cohort = 5\nmin_cohort = 5\n", "Cannot overwrite a value (at line 2"),
        ("min_cohort = true", "line 1: Expected `int`, got `bool`"),
        ("min_cohort = 5.0\n", "line 1: Expected `int`, got `float` - at `$.min_cohort`"),
        ("schemes = 'ckks'", "line 1: Expected `array`, got `str`"),
        ("x\n", "Expected '=' after a key"),
        ("schemes = []", "line 1: schemes is empty"),
        ("schemes = ['mask']", "line 1: schemes has no choice 'mask'"),
        ("weights = ['both']", "line 1: weights has no choice 'both'"),
        ("weights = ['coordinator']", "line 1: weights allows only 'coordinator'"),
        ("collusion = 0.5", "line 1: collusion is 0.5"),
        ("collusion = nan", "line 1: collusion is nan"),
        ("require = 'node'", "line 1: require is 'node'"),
        ("require = 'client'\ndelta = 1e-5", "line 1: require is 'client' without epsilon"),
        ("require = 'record'\nepsilon = 8", "line 1: require is 'record' without delta"),
        ("min_cohort = 4\nepsilon = 8", "line 2: epsilon is a budget of no unit"),
        ("delta = 1e-5\nrequire = 'none'", "line 1: delta is a budget of no unit"),
        ("require = 'client'\nepsilon = nan\ndelta = 1e-5", "line 2: epsilon is nan"),
        ("require = 'client'\nepsilon = inf\ndelta = 1e-5", "line 2: epsilon is inf"),
        ("require = 'client'\nepsilon = -1\ndelta = 1e-5", "line 2: epsilon is -1"),
        ("require = 'client'\nepsilon = 1\ndelta = 1", "line 3: delta is 1"),
        ("require = 'client'\nepsilon = 1\ndelta = 0.0", "line 3: delta is 0"),
        ("architectures = []", "line 1: architectures is empty"),
        ("architectures = [\n'abc']", "line 1: architectures has 'abc', which is no SHA-256"),
        (f"architectures = ['{'g' * 64}']", "line 1: architectures has"),
        (f'architectures = ["{"a" * 64}\\n"]', "which is no SHA-256"),
        ("max_learning_rate = nan", "line 1: max_learning_rate is nan"),
        ("max_learning_rate = 0.0", "line 1: max_learning_rate is 0"),
        ("max_steps = 0", "line 1: max_steps is 0"),
        ("max_steps = 100001", "line 1: max_steps is 100001"),
        ("min_difference = -1", "line 1: min_difference is -1"),
        ("max_rounds_a_day = 0", "line 1: max_rounds_a_day is 0"),
        ("a = " + "[" * 5000, "maximum recursion"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_file_line_and_mend(
    tmp_path: Path, text: str, says: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_policy(path)
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert caught.value.hint


@pytest.mark.req("G-03")
def test_a_missing_unreadable_or_endless_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_policy(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xff\n")
    with pytest.raises(ConfigError, match="cannot read"):
        load_policy(tmp_path / "latin.toml")
    with pytest.raises(ConfigError, match="characters"):
        load_policy(written(tmp_path, "#" * (1 << 18) + "\n"))


@pytest.mark.req("G-04")
def test_node_toml_names_the_policy_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    written(tmp_path / "rules", "# mine\nmin_cohort = 7\nschemes = ['ckks']\n", "strict.toml")
    named = {**NODE, "node": {**NODE["node"], "policy": "rules/strict.toml"}}
    path = written(tmp_path, node_toml(named), "node.toml")
    assert "\n[policy]\n" not in path.read_text()
    config = load_node_config(path)
    policy = config.node_policy()
    assert (policy.min_cohort, policy.schemes) == (7, ("ckks",))
    assert config.policy.schemes == ("ckks",), "whoever asks the table gets what holds"
    assert policy.origin == PolicyOrigin("strict.toml", {"min_cohort": 2, "schemes": 3}, "")
    assert config.folder == tmp_path
    written(tmp_path / "rules", "min_cohort = 2", "strict.toml")
    with pytest.raises(ConfigError, match=r"strict\.toml: line 1: min_cohort is 2"):
        load_node_config(path)
    (tmp_path / "rules" / "strict.toml").unlink()
    with pytest.raises(ConfigError, match=r"cannot read .*strict\.toml"):
        load_node_config(path)


@pytest.mark.req("G-04")
@pytest.mark.parametrize("table", ["[policy]", "[policy]\nmin_cohort = 7"])
def test_a_table_beside_a_policy_file_is_refused_and_alone_it_holds(
    tmp_path: Path, table: str
) -> None:
    written(tmp_path, "min_cohort = 7")
    head = node_toml({**NODE, "node": {**NODE["node"], "policy": "policy.toml"}})
    path = written(tmp_path, f"{head}\n{table}\n", "node.toml")
    with pytest.raises(ConfigError, match=r'\[policy\] beside node\.policy = "policy\.toml"') as it:
        load_node_config(path)
    assert "policy.toml" in it.value.hint
    table_line, key_line = map(int, re.findall(r"line (\d+)", str(it.value)))
    lines = path.read_text().split("\n")
    assert lines[table_line - 1] == "[policy]"
    assert lines[key_line - 1] == 'policy = "policy.toml"'
    path = written(tmp_path, node_toml({**NODE, "policy": {"min_cohort": 7}}), "node.toml")
    policy = load_node_config(path).node_policy()
    line = path.read_text().split("\n").index("min_cohort = 7") + 1
    assert policy.origin.cite("min_cohort", 7) == f"node.toml line {line}: policy.min_cohort = 7"


@pytest.mark.req("G-02")
def test_where_a_policy_was_read_from_is_no_setting(tmp_path: Path) -> None:
    path = written(tmp_path, node_toml(NODE) + "\n[origin]\nfile = 'x'\n", "node.toml")
    with pytest.raises(ConfigError, match=r"\[origin\] is not a setting"):
        load_node_config(path)
    assert isinstance(load_node_config(written(tmp_path, node_toml(NODE), "n.toml")), NodeConfig)


@pytest.mark.req("G-03")
def test_the_policy_holds_every_setting_of_the_section_under_the_same_name() -> None:
    names = set(PolicySection.__struct_fields__)
    assert names == set(NodePolicy.__dataclass_fields__) - {"origin"}
    plain = parse_settings(Path("x"), "", PolicySection)
    assert msgspec.structs.asdict(plain) == {
        name: getattr(NodePolicy(), name) for name in PolicySection.__struct_fields__
    }


@pytest.mark.req("G-01", "G-03")
def test_the_specification_has_the_settings_defaults_and_codes_of_the_program() -> None:
    spec = Path(__file__).parents[2] / "specs" / "56-policy.md"
    rows = re.findall(r"^\| (`.*) \| (.*) \| (.*) \| .* \| `(\w+)` \|$", spec.read_text(), re.M)
    codes = {}
    for names, default, span, code in rows:
        for name, limits in zip(re.findall(r"`(\w+)`", names), span.split(", "), strict=False):
            value = getattr(NodePolicy(), name)
            shown = "unset" if value is None else json.dumps(value)
            assert default.strip("`") == shown, name
            codes[name] = code
            if name in _RANGES:
                assert [float(end) for end in limits.split(" to ")] == [*_RANGES[name][:2]], name
    assert codes.pop("delta") == codes["epsilon"]
    assert codes == {name: reason.value for name, (reason, _) in _RULES.items()}
