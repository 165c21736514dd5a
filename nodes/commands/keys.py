"""`secagg keys`: from an offline root to running parties, and back out again.

The backspace in docstrings is click's mark for lines to be left as they are: raw strings break it.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

import click
import msgspec

from keys.authority import init_root, open_root
from keys.certificates import MAX_BUNDLE_BYTES, MAX_CARD_BYTES, Request, read_bundle, read_request
from keys.certificates import read_root_card as read_card
from keys.enrolment import install_bundle, install_roster, make_request, request_path
from keys.enrolment import rotate as rotate_keys
from keys.identity import ROOT_CARD
from keys.names import Role, normal_fingerprint
from keys.roster import Roster, is_roster
from keys.sealing import Unlock
from keys.store import read_public, write_atomic
from keys.summary import Line, Summary, summarise
from nodes.commands.options import json_option
from secagg.errors import KeyMaterialError

__all__ = ["command"]

_FOLDER: Final = click.Path(file_okay=False, path_type=Path)
_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_ROLES: Final = click.Choice([role.value for role in Role])
_UNITS: Final = {"h": 3_600, "d": 86_400, "w": 604_800}


@click.group()
def command() -> None:
    """Provision, show, rotate and revoke keys.

    A private key never leaves the folder it was made in. Requests and bundles are public: send them
    as you like, and compare the two fingerprints by telephone.

    \b
    at the root    secagg keys init root --name north-plants
    at the node    secagg keys request --node-id plant-a --role node --out plant-a
    at the root    secagg keys approve plant-a.request.json --root root
    at the node    secagg keys install plant-a.bundle.json --to plant-a
    anywhere       secagg keys show plant-a --expiring 30d

    Secrets are plain files of mode 0600 unless a passphrase or key file is given. It is taken from
    --passphrase-file, --key-file, the variable SECAGG_PASSPHRASE, or asked for on a terminal.
    """  # noqa: D301


def _unlock_options(function: Callable[..., None]) -> Callable[..., None]:
    key = click.option("--key-file", type=_FILE, help="32 or more random bytes, mode 0600.")
    phrase = click.option("--passphrase-file", type=_FILE, help="Passphrase, mode 0600.")
    return phrase(key(function))


def _encrypt_option(function: Callable[..., None]) -> Callable[..., None]:
    return click.option("--encrypt", is_flag=True, help="Ask for a passphrase for the new secret.")(
        function
    )


@command.command()
@click.argument("folder", type=_FOLDER)
@click.option("--name", required=True, help="Name of the federation, such as north-plants.")
@_encrypt_option
@_unlock_options
def init(folder: Path, name: str, *, encrypt: bool, **files: Path | None) -> None:
    """Make the offline root of a new federation in FOLDER.

    \b
    secagg keys init root --name north-plants --encrypt
    """  # noqa: D301
    protect = _new_protection(files, encrypt=encrypt)
    root = init_root(folder, name, now=_now(), rng=os.urandom, protect=protect)
    _results(federation=root.card.federation, root_fingerprint=root.card.fingerprint)
    _talk("keep this folder offline; tell the fingerprint to every party by another way than mail")


@command.command()
@click.option("--node-id", required=True, help="Name of this party, such as plant-a.")
@click.option("--role", type=_ROLES, default="node", show_default=True)
@click.option("--out", "folder", type=_FOLDER, required=True, help="Folder of this party.")
@_encrypt_option
@_unlock_options
def request(node_id: str, role: str, folder: Path, *, encrypt: bool, **files: Path | None) -> None:
    """Make this party's keys and a request for a certificate.

    \b
    secagg keys request --node-id plant-a --role node --out plant-a
    """  # noqa: D301
    protect = _new_protection(files, encrypt=encrypt)
    made = make_request(folder, node_id, Role(role), now=_now(), rng=os.urandom, protect=protect)
    _results(request=request_path(folder, node_id), fingerprint=made.fingerprint)
    _talk("send the request to the root, and read the fingerprint out when they call back")


@command.command()
@click.argument("requests", type=_FILE, nargs=-1, required=True)
@click.option("--root", "folder", type=_FOLDER, required=True, help="Folder of the root.")
@click.option("--fingerprint", "fingerprints", multiple=True, help="As the party read it out.")
@click.option("--role", type=_ROLES, default="node", show_default=True, help="Role to grant.")
@click.option("--days", type=int, default=365, show_default=True, help="Validity.")
@click.option("--readmit", is_flag=True, help="Let a revoked name come back under new keys.")
@click.option("--out", type=_FOLDER, help="Where bundles go  [default: beside each request]")
@_unlock_options
def approve(
    requests: tuple[Path, ...],
    folder: Path,
    fingerprints: tuple[str, ...],
    role: str,
    *,
    days: int,
    readmit: bool,
    out: Path | None,
    **files: Path | None,
) -> None:
    """Certify REQUESTS and issue a new roster; writes one bundle for each.

    \b
    secagg keys approve plant-a.request.json --root root
    secagg keys approve hub.request.json --root root --role coordinator
    """  # noqa: D301
    read = [read_request(read_public(path, MAX_CARD_BYTES), source=str(path)) for path in requests]
    root = open_root(folder, _unlock(files))
    compared = {*fingerprints, *_ask_fingerprints(read, fingerprints, root.roster())}
    bundles = root.approve(
        read, now=_now(), fingerprints=compared, grant=Role(role), days=days, readmit=readmit
    )
    for path, asked, bundle in zip(requests, read, bundles, strict=True):
        target = (out or path.parent) / f"{asked.node_id}.bundle.json"
        write_atomic(target, bundle)
        _results(bundle=target)
    _results(roster=folder / "roster.json", version=root.roster().version)
    _talk("send each bundle back, and the roster to every other party: secagg keys install")


@command.command()
@click.argument("bundle", type=_FILE)
@click.option("--to", "folder", type=_FOLDER, required=True, help="Folder of this party.")
@click.option("--root-fingerprint", help="As the operator of the root read it out.")
@_unlock_options
def install(bundle: Path, folder: Path, root_fingerprint: str | None, **files: Path | None) -> None:
    """Check and take up a BUNDLE from the root, or a newer roster.json.

    \b
    secagg keys install plant-a.bundle.json --to plant-a
    secagg keys install roster.json --to plant-a
    """  # noqa: D301
    data = read_public(bundle, MAX_BUNDLE_BYTES)
    if is_roster(data):
        _results(version=install_roster(data, folder, source=str(bundle)).version)
        return
    identity = install_bundle(
        data,
        folder,
        now=_now(),
        unlock=_unlock(files),
        root_fingerprint=root_fingerprint or _ask_root(data, folder, str(bundle)),
        source=str(bundle),
    )
    _results(installed=identity.node_id, role=identity.role.value, fingerprint=identity.fingerprint)
    _talk("restart this party if it was running under older keys")


@command.command()
@click.argument("folder", type=_FOLDER)
@click.option("--restart", is_flag=True, help="Throw away a rotation that was not approved.")
@_encrypt_option
@_unlock_options
def rotate(folder: Path, *, restart: bool, encrypt: bool, **files: Path | None) -> None:
    """Make the next keys of the party in FOLDER; the present ones stay until `install`.

    \b
    secagg keys rotate plant-a
    """  # noqa: D301
    made = rotate_keys(
        folder,
        now=_now(),
        rng=os.urandom,
        unlock=_unlock(files),
        protect=Unlock(ask=_asker(confirm=True)) if encrypt else None,
        restart=restart,
    )
    _results(request=request_path(folder, made.node_id), fingerprint=made.fingerprint)
    _talk("send the request to the root; signed by the present key, it needs no telephone call")


@command.command()
@click.argument("node_id")
@click.option("--root", "folder", type=_FOLDER, required=True, help="Folder of the root.")
@click.option("--reason", default="", help="Written into the roster, for all to read.")
@_unlock_options
def revoke(node_id: str, folder: Path, reason: str, **files: Path | None) -> None:
    """Take NODE_ID out of the roster; its keys never come back.

    \b
    secagg keys revoke plant-a --root root --reason "gateway stolen"
    """  # noqa: D301
    roster = open_root(folder, _unlock(files)).revoke(node_id, now=_now(), reason=reason)
    _results(roster=folder / "roster.json", version=roster.version)
    _talk("install this roster at every party: until then they still trust the revoked keys")


@command.command()
@click.argument("folder", type=_FOLDER)
@click.option("--expiring", metavar="TIME", help="Only certificates that end within 12h, 30d, 4w.")
@json_option
def show(folder: Path, expiring: str | None, *, as_json: bool) -> None:
    """Show the roster of a root's or a party's FOLDER; unlocks nothing.

    \b
    secagg keys show root
    secagg keys show plant-a --expiring 30d --json
    """  # noqa: D301
    summary = summarise(folder, now=_now(), expiring_s=_seconds(expiring) if expiring else None)
    if as_json:
        click.echo(msgspec.json.encode(summary))
        return
    for text in _table(summary):
        click.echo(text)


def _now() -> int:
    return int(time.time())


def _talk(text: str) -> None:
    click.echo(text, err=True)


def _results(**values: object) -> None:
    for name, value in values.items():
        click.echo(f"{name.replace('_', ' '):<16} {value}")


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _asker(*, confirm: bool) -> Callable[[], bytes]:
    @cache
    def ask() -> bytes:
        text: str = click.prompt(
            "new passphrase" if confirm else "passphrase",
            hide_input=True,
            confirmation_prompt=confirm,
            err=True,
        )
        return text.encode()

    return ask


def _unlock(files: dict[str, Path | None]) -> Unlock | None:
    ask = _asker(confirm=False) if _on_terminal() else None
    return Unlock.gather(os.environ, ask=ask, **files)


def _new_protection(files: dict[str, Path | None], *, encrypt: bool) -> Unlock | None:
    return Unlock.gather(os.environ, ask=_asker(confirm=True) if encrypt else None, **files)


def _ask_fingerprints(requests: list[Request], given: tuple[str, ...], roster: Roster) -> list[str]:
    """Have a person compare what was not given; off a terminal the library refuses instead."""
    done = {normal_fingerprint(text) for text in given}
    listed = {member.signing_key for member in roster.active(_now())}
    confirmed: list[str] = []
    for asked in requests:
        vouched = asked.previous is not None and asked.previous.signing_key in listed
        if vouched or asked.fingerprint in done or not _on_terminal():
            continue
        _talk(f"{asked.node_id} asks to be {asked.role.value}: {asked.fingerprint}")
        _confirm("does its engineer read out the same", "not approved")
        confirmed.append(asked.fingerprint)
    return confirmed


def _ask_root(data: bytes, folder: Path, source: str) -> str | None:
    if (folder / ROOT_CARD).exists() or not _on_terminal():
        return None
    card = read_card(read_bundle(data, source=source).root, source=source)
    _talk(f"root of {card.federation}: {card.fingerprint}")
    _confirm("does the operator of the root read out the same", "not installed")
    return card.fingerprint


def _confirm(question: str, otherwise: str) -> None:
    if not click.confirm(question, err=True):
        raise KeyMaterialError(
            f"{otherwise}: the fingerprint was not confirmed",
            hint="if the two differ, somebody has tampered with the file: have it sent again",
        )


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})([hdw])", text)
    if match is None:
        raise click.BadParameter("a number and h, d or w, such as 30d", param_hint="--expiring")
    return int(match[1]) * _UNITS[match[2]]


def _table(summary: Summary) -> list[str]:
    lines = []
    if summary.owner is not None:
        owner = summary.owner
        facts = [
            "encrypted" if owner.encrypted else "not encrypted",
            "certified" if owner.certified else "no certificate yet",
            *(["rotation under way"] if owner.rotating else []),
        ]
        lines.append(f"party            {owner.node_id} ({owner.role.value}, {', '.join(facts)})")
        lines.append(f"fingerprint      {owner.fingerprint}")
    if summary.federation is not None and summary.issued is not None:
        lines.append(f"federation       {summary.federation}")
        lines.append(f"root fingerprint {summary.root_fingerprint}")
        lines.append(f"roster version   {summary.version}, issued {_date(summary.issued)}")
    rows = [_row(line) for line in (*summary.members, *summary.revoked)]
    return lines + (_aligned([_TITLES, *rows]) if rows else [])


_TITLES: Final = ("node", "role", "serial", "state", "until", "fingerprint or reason")


def _row(line: Line) -> tuple[str, ...]:
    role = line.role.value if line.role is not None else "-"
    last = line.fingerprint or line.note or "-"
    return (line.node_id, role, str(line.serial), line.state.value, _date(line.until), last)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(_TITLES))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%MZ")
