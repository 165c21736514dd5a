"""Transcripts of `secagg keys`: what is typed, what comes out, what is left on the disk."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import nodes.commands.keys as module
from keys.identity import load_identity
from keys.sealing import Unlock
from keys.store import write_atomic
from nodes.cli import secagg
from secagg.errors import ConfigError, KeyMaterialError

SECAGG = Path(sysconfig.get_path("scripts")) / "secagg"


@pytest.fixture
def keys(tmp_path: Path, monkeypatch):
    """Run `secagg keys ...` in an empty folder; errors come through as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SECAGG_PASSPHRASE", raising=False)

    def call(line: str, *more: str, typed: str | None = None) -> Result:
        arguments = ["keys", *line.split(), *more]
        return CliRunner().invoke(secagg, arguments, input=typed, catch_exceptions=False)

    return call


@pytest.fixture
def terminal(monkeypatch) -> None:
    monkeypatch.setattr(module, "_on_terminal", lambda: True)


def told(result: Result, name: str) -> str:
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if line.startswith(name + " ")]
    return lines[0][17:].strip()


def begin(keys) -> tuple[str, str]:
    root = told(keys("init root --name north"), "root fingerprint")
    return root, told(keys("request --node-id plant-a --out plant-a"), "fingerprint")


def enrol(keys) -> str:
    root, mine = begin(keys)
    keys(f"approve plant-a/plant-a.request.json --root root --fingerprint {mine}")
    keys(f"install plant-a/plant-a.bundle.json --to plant-a --root-fingerprint {root}")
    return mine


def test_from_an_empty_folder_to_a_running_party(keys) -> None:
    root, mine = begin(keys)
    approved = keys(
        f"approve plant-a/plant-a.request.json --root root --days 30 --fingerprint {mine.upper()}"
    )
    assert told(approved, "bundle") == "plant-a/plant-a.bundle.json"
    assert told(approved, "version") == "2"
    installed = keys(f"install plant-a/plant-a.bundle.json --to plant-a --root-fingerprint {root}")
    assert told(installed, "installed") == "plant-a"
    assert told(installed, "fingerprint") == mine
    shown = keys("show plant-a").stdout
    assert "party            plant-a (node, not encrypted, certified)" in shown
    assert f"root fingerprint {root}" in shown
    assert shown.splitlines()[-1].split()[:4] == ["plant-a", "node", "1", "valid"]
    assert load_identity(Path("plant-a")).certificate is not None


def test_results_are_on_standard_output_and_talk_on_standard_error(keys) -> None:
    result = keys("init root --name north")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["federation", "root"]
    assert "offline" in result.stderr
    assert "offline" not in result.stdout


def test_a_coordinator_needs_the_operators_word(keys) -> None:
    begin(keys)
    mine = told(keys("request --node-id hub --role coordinator --out hub"), "fingerprint")
    line = f"approve hub/hub.request.json --root root --fingerprint {mine}"
    with pytest.raises(KeyMaterialError, match="asks for the role coordinator"):
        keys(line)
    assert told(keys(line + " --role coordinator"), "version") == "2"


def test_rotation_and_revocation(keys) -> None:
    old = enrol(keys)
    new = told(keys("rotate plant-a"), "fingerprint")
    assert new != old
    assert "rotation under way" in keys("show plant-a").stdout
    keys("approve plant-a/plant-a.request.json --root root")
    assert told(keys("install plant-a/plant-a.bundle.json --to plant-a"), "fingerprint") == new
    revoked = keys("revoke plant-a --root root --reason", "gateway stolen")
    assert told(revoked, "version") == "4"
    assert told(keys("install root/roster.json --to plant-a"), "version") == "4"
    assert "gateway stolen" in keys("show plant-a").stdout


def test_show_speaks_json_and_filters(keys) -> None:
    mine = enrol(keys)
    shown = json.loads(keys("show root --json").stdout)
    assert shown["version"] == 2
    assert shown["members"][0]["fingerprint"] == mine
    assert shown["owner"] is None
    assert json.loads(keys("show root --json --expiring 30d").stdout)["members"] == []
    assert len(json.loads(keys("show root --json --expiring 53w").stdout)["members"]) == 1
    assert keys("show root --expiring soon").exit_code == 2


@pytest.mark.req("K-10")
def test_on_a_terminal_fingerprints_are_asked_for(keys, terminal) -> None:
    root, mine = begin(keys)
    line = "approve plant-a/plant-a.request.json --root root"
    with pytest.raises(KeyMaterialError, match="not approved: the fingerprint was not confirmed"):
        keys(line, typed="n\n")
    assert told(keys("show root"), "roster version").startswith("1,")
    accepted = keys(line, typed="y\n")
    assert accepted.exit_code == 0
    assert f"plant-a asks to be node: {mine}" in accepted.stderr
    line = "install plant-a/plant-a.bundle.json --to plant-a"
    with pytest.raises(KeyMaterialError, match="not installed: the fingerprint was not confirmed"):
        keys(line, typed="n\n")
    assert not Path("plant-a/certificate.json").exists()
    installed = keys(line, typed="y\n")
    assert installed.exit_code == 0
    assert root in installed.stderr


@pytest.mark.req("K-10")
@pytest.mark.req("K-15")
def test_off_a_terminal_nothing_is_taken_on_trust(keys) -> None:
    _, mine = begin(keys)
    with pytest.raises(KeyMaterialError, match="not confirmed"):
        keys("approve plant-a/plant-a.request.json --root root")
    keys(f"approve plant-a/plant-a.request.json --root root --fingerprint {mine}")
    with pytest.raises(KeyMaterialError, match="not confirmed"):
        keys("install plant-a/plant-a.bundle.json --to plant-a")


@pytest.mark.req("K-26")
def test_a_passphrase_from_a_file_the_variable_and_a_prompt(keys, monkeypatch) -> None:
    write_atomic(Path("phrase"), b"correct horse battery\n")
    keys("request --node-id plant-a --out plant-a --passphrase-file phrase")
    assert "(node, encrypted, no certificate yet)" in keys("show plant-a").stdout
    assert load_identity(Path("plant-a"), Unlock.from_passphrase("correct horse battery"))
    monkeypatch.setenv("SECAGG_PASSPHRASE", "correct horse battery")
    keys("init root --name north")
    monkeypatch.setenv("SECAGG_PASSPHRASE", "another horse battery")
    with pytest.raises(KeyMaterialError, match="wrong passphrase"):
        keys("revoke plant-a --root root")
    monkeypatch.delenv("SECAGG_PASSPHRASE")
    with pytest.raises(KeyMaterialError, match="none was given"):
        keys("revoke plant-a --root root")
    monkeypatch.setattr(module, "_on_terminal", lambda: True)
    with pytest.raises(KeyMaterialError, match="not in version 1"):
        keys("revoke plant-a --root root", typed="correct horse battery\n")


@pytest.mark.req("K-26")
def test_encrypt_asks_twice(keys) -> None:
    phrase = "correct horse battery\n"
    result = keys("request --node-id plant-a --out plant-a --encrypt", typed=phrase * 2)
    assert result.exit_code == 0
    assert "horse" not in result.output
    assert "encrypted," in keys("show plant-a").stdout
    result = keys("request --node-id plant-b --out plant-b --encrypt", typed=phrase + "x\n")
    assert result.exit_code == 1
    assert not Path("plant-b/identity.secret").exists()


@pytest.mark.req("K-26")
def test_a_key_file(keys) -> None:
    write_atomic(Path("key"), b"k" * 32)
    root = told(keys("init root --name north --key-file key"), "root fingerprint")
    mine = told(keys("request --node-id plant-a --out plant-a --key-file key"), "fingerprint")
    keys(f"approve plant-a/plant-a.request.json --root root --fingerprint {mine} --key-file key")
    line = f"install plant-a/plant-a.bundle.json --to plant-a --root-fingerprint {root}"
    with pytest.raises(KeyMaterialError, match="none was given"):
        keys(line)
    assert told(keys(line + " --key-file key"), "installed") == "plant-a"


@pytest.mark.req("K-02")
@pytest.mark.parametrize("node_id", ["../x", "A", "-", "a/b"])
def test_a_bad_node_id(keys, node_id: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a node id"):
        keys(f"request --out x --node-id={node_id}")
    assert list(Path().iterdir()) == []


@pytest.mark.req("K-01")
def test_no_command_prints_a_secret(keys) -> None:
    enrol(keys)
    secret = json.loads(Path("plant-a/identity.secret").read_text())["payload"]
    for line in ("show plant-a", "show plant-a --json", "show root --json", "rotate plant-a"):
        assert secret[8:40] not in keys(line).output


def test_help_has_examples_one_a_line(keys) -> None:
    for name in module.command.commands:
        text = keys(f"{name} --help").stdout
        assert f"\n  secagg keys {name} " in text
        assert "\\b" not in text


def test_the_installed_command_gives_one_line_a_hint_and_a_code(tmp_path: Path) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SECAGG), "keys", *arguments],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    made = call("init", "root", "--name", "north")
    assert (made.returncode, made.stdout.split()[0]) == (0, "federation")
    again = call("init", "root", "--name", "north")
    assert again.returncode == 4
    assert again.stdout == ""
    error, hint = again.stderr.splitlines()
    assert error == "error: root/root.secret: exists already and is never overwritten"
    assert hint == "hint: use another folder"
    assert call("request", "--node-id", "A", "--out", "x").returncode == 5
    assert call("request").returncode == 2
