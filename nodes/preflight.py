"""Checks before a run: everything that can be known beforehand, each with its mend."""

from __future__ import annotations

import os
import platform
import socket as tcp
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final
from urllib.parse import urlparse

from fl_core.errors import DataError, ModelError
from keys import Role
from nodes.config import (
    CoordinatorConfig,
    NodeConfig,
    load_coordinator_config,
    load_node_config,
)
from nodes.context import Membership, open_membership, unlock_from
from nodes.coordinator_daemon import CHECKPOINT
from nodes.learner import load_data, load_public
from nodes.ledger_checks import hub_ledger, last_offer, ledger_receipt, next_round, node_ledger
from nodes.loop import clock, wall_clock
from nodes.node_daemon import MEMORY
from nodes.session.privacy import NONE
from nodes.store import hold_state, load_memory, load_run
from nodes.transport import NodeSocket, check_library
from secagg.errors import ConfigError, RemoteProtocolError, SecAggError
from secagg.schemes import scheme_named
from secagg.version import PROTOCOL_VERSION, VERSION
from secagg.wire.envelope import NO_RUN, open_envelope, seal_envelope
from secagg.wire.messages import Probe, Welcome

__all__ = ["MAX_SKEW", "Finding", "preflight"]

MAX_SKEW: Final = 60.0
"""Seconds that clocks may differ: certificates are checked against each party's own."""
_EXPIRY_WARNING: Final = 14 * 86_400
_ANSWER_TIMEOUT: Final = 5.0
_NEEDS: Final = {"ckks": ("tenseal", "zstandard")}
_Check = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    name: str
    passed: bool
    detail: str
    hint: str = ""


def preflight(path: Path) -> Iterator[Finding]:
    """Check a coordinator.toml or node.toml and all it points to, in the order of a start.

    A check that fails ends the list where the later ones would only repeat the cause.
    """
    yield _run("versions", _versions)
    try:
        is_node = "[node]" in path.read_text(encoding="utf-8")
        config = load_node_config(path) if is_node else load_coordinator_config(path)
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        yield Finding("configuration", False, str(error), getattr(error, "hint", ""))
        return
    yield Finding("configuration", True, f"{path} is complete")
    role = Role.NODE if isinstance(config, NodeConfig) else Role.COORDINATOR
    section = config.node if isinstance(config, NodeConfig) else config.coordinator
    try:
        unlock = unlock_from(config.unlock, config.folder)
        members = open_membership(config.folder / section.keys, unlock, role, wall_clock())
    except SecAggError as error:
        yield Finding("keys", False, str(error), error.hint)
        return
    yield Finding("keys", True, f"{members.identity.node_id}, {role}, in {members.folder}")
    yield _run("roster", lambda: _roster(members))
    running = _is_running(config.folder / section.state)
    if isinstance(config, NodeConfig):
        yield from _node_checks(config, members, running=running)
    else:
        yield from _coordinator_checks(config, members, running=running)


def _coordinator_checks(
    config: CoordinatorConfig, members: Membership, *, running: bool
) -> Iterator[Finding]:
    yield _run("scheme", lambda: _schemes([config.run.scheme]))
    yield _run("cohort", lambda: _cohort(config, members))
    yield _run("state", lambda: _checkpoint(config))
    ledger = _run("ledger", lambda: hub_ledger(config))
    yield ledger
    if ledger.passed and config.privacy.unit != NONE and not running:  # it may hold the ledger
        yield _run("privacy", lambda: next_round(config, members))
    if running:
        yield Finding("port", True, "the coordinator is running")
    else:
        yield _run("port", lambda: _port(config.coordinator.bind))


def _node_checks(config: NodeConfig, members: Membership, *, running: bool) -> Iterator[Finding]:
    yield _run("scheme", lambda: _schemes(config.policy.schemes))
    yield _run("data", lambda: _data(config))
    yield _run("state", lambda: _memory(config))
    ledger = _run("ledger", lambda: node_ledger(config))
    yield ledger
    if running:
        yield Finding("coordinator", True, "the node is running; stop it to test the connection")
        return
    reached = _run("network", lambda: _reach(config.node.coordinator))
    yield reached
    if not reached.passed:
        return
    try:
        welcome = _ask(config, members)
    except SecAggError as error:
        yield Finding("coordinator", False, str(error), error.hint)
        return
    same = welcome.software == VERSION
    yield Finding(
        "coordinator",
        True,
        f"answers, round {welcome.rounds_done} of {welcome.rounds_total}, secagg {welcome.software}"
        + ("" if same else f" (this is {VERSION})"),
    )
    if ledger.passed:
        yield _run("receipt", lambda: ledger_receipt(config, members, welcome.receipt))
        yield _run("offer", lambda: last_offer(config, members, welcome))
    skew = welcome.wall_time - wall_clock()
    yield Finding(
        "clock",
        abs(skew) <= MAX_SKEW,
        f"{abs(skew):.1f} s {'behind' if skew > 0 else 'ahead of'} the coordinator",
        f"set both clocks by NTP; more than {MAX_SKEW:.0f} s makes certificates fail early or late",
    )


def _run(name: str, check: _Check) -> Finding:
    try:
        return Finding(name, True, check())
    except (SecAggError, DataError, ModelError) as error:
        return Finding(name, False, str(error), error.hint)


def _versions() -> str:
    libzmq = check_library()
    return (
        f"secagg {VERSION}, protocol {PROTOCOL_VERSION}, Python {platform.python_version()}, "
        f"libzmq {libzmq}, cryptography {version('cryptography')}, torch {version('torch')}"
    )


def _schemes(names: Iterable[str]) -> str:
    """Check that the schemes of a run, or of a node's policy, find what they need here."""
    found = []
    for name in names:
        scheme_named(name).check()
        needs = _NEEDS.get(name, ())
        found.append(", ".join([name, *(f"{package} {version(package)}" for package in needs)]))
    return "; ".join(found)


def _roster(members: Membership) -> str:
    roster, now = members.roster, wall_clock()
    me = roster.member(members.identity.node_id)
    if not roster.coordinator.valid_at(now):
        raise ConfigError(
            f"the certificate of {roster.coordinator.node_id} does not hold now",
            hint="rotate the coordinator's keys and install the new roster everywhere",
        )
    left = me.not_after - now
    if left < _EXPIRY_WARNING:
        raise ConfigError(
            f"this certificate ends in {max(0, left) / 86_400:.1f} days",
            hint="run `secagg keys rotate` and have it approved",
        )
    active = sum(node.valid_at(now) for node in roster.nodes)
    return f"version {roster.version}, {active} active nodes, own certificate {left / 86_400:.0f} d"


def _cohort(config: CoordinatorConfig, members: Membership) -> str:
    active, needed = len(members.view(wall_clock()).signing_keys), config.run.min_nodes
    if active < needed:
        raise ConfigError(
            f"the roster has {active} active nodes, run.min_nodes is {needed}",
            hint="install the root's newest roster.json here; if that is the newest, approve more "
            "nodes at the root",
        )
    plan = config.plan()
    if not plan.cohort_size(active, active):
        plan.check_cohort(min(active, plan.max_cohort), active)  # says why
    return f"{active} active nodes, a round starts with {plan.least_cohort(active)} or more"


def _checkpoint(config: CoordinatorConfig) -> str:
    state = load_run(config.folder / config.coordinator.state / CHECKPOINT, config.plan().training)
    _writable(config.folder / config.coordinator.state)
    if state is None:
        return "a new run"
    if state.finished:
        return "complete; it only hands the model to nodes that lack it"
    return f"goes on after {state.rounds_done} of {config.run.rounds} rounds"


def _memory(config: NodeConfig) -> str:
    _writable(config.folder / config.node.state)
    memory = load_memory(config.folder / config.node.state / MEMORY)
    return "never took part yet" if memory is None else f"remembers {len(memory.rounds)} runs"


def _writable(folder: Path) -> None:
    """Check that the daemon will be able to keep its state."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{existing} is not a folder that can be written", hint="choose another state folder"
        )


def _data(config: NodeConfig) -> str:
    data = load_data(config.data, config.folder)
    load_public(config.data, config.folder)
    return (
        f"{data.device}: {len(data.train)} training and {len(data.validation)} validation rows of "
        f"{len(data.feature_names)} features"
    )


def _is_running(folder: Path) -> bool:
    if not (folder / ".daemon").exists():
        return False
    try:
        with hold_state(folder):
            return False
    except ConfigError:
        return True


def _port(bind: str) -> str:
    address = urlparse(bind)
    try:
        port = address.port
    except ValueError:
        port = None if not bind.endswith(":*") else 0
    if address.scheme != "tcp" or port is None:
        raise ConfigError(f"{bind} is not an endpoint", hint="use tcp://0.0.0.0:7710 or the like")
    host = "" if address.hostname in (None, "*") else address.hostname or ""
    try:
        with tcp.socket(tcp.AF_INET6 if ":" in host else tcp.AF_INET) as probe:
            probe.setsockopt(tcp.SOL_SOCKET, tcp.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {bind}: {error.strerror or error}",
            hint="free the port or choose another in coordinator.bind",
        ) from error
    return f"{bind} is free"


def _reach(endpoint: str) -> str:
    address = urlparse(endpoint)
    try:
        where = address.hostname, address.port
    except ValueError:
        where = None, None
    if address.scheme != "tcp" or where[0] is None or where[1] is None:
        raise ConfigError(f"{endpoint} is not an endpoint", hint="use tcp://host:7710")
    try:
        tcp.create_connection((where[0], where[1]), timeout=_ANSWER_TIMEOUT).close()
    except OSError as error:
        raise ConfigError(
            f"nothing answers at {endpoint}: {error.strerror or error}",
            hint="start the coordinator, or open the port in the firewall between",
        ) from error
    return f"{endpoint} accepts connections"


def _ask(config: NodeConfig, members: Membership) -> Welcome:
    """Complete a CURVE handshake and a probe; the coordinator does not count us in."""
    me, coordinator = members.identity, members.roster.coordinator
    socket = NodeSocket(
        config.node.coordinator,
        secret=me.transport_secret,
        public=me.transport_key,
        server=coordinator.transport_key,
    )
    change = ""
    try:
        probe = Probe(VERSION, PROTOCOL_VERSION)
        sealed = bytes(seal_envelope(probe, me, to=coordinator.node_id, run_id=NO_RUN))
        sent = False
        end = clock() + _ANSWER_TIMEOUT
        while clock() < end:
            sent = sent or socket.send(sealed)  # goes out once the handshake is through
            socket.socket.poll(100)
            change = socket.connection_change() or change
            for frame in socket.receive():
                message = open_envelope(
                    frame,
                    sender=coordinator.node_id,
                    key=coordinator.signing_key,
                    receiver=me.node_id,
                    run_id=NO_RUN,
                ).message
                if isinstance(message, Welcome):
                    return message
    except RemoteProtocolError as error:
        raise ConfigError(
            f"the coordinator's answer is not acceptable: {error}",
            hint="are both sides of the same secagg version, and is the roster up to date?",
        ) from error
    finally:
        socket.close()
    raise ConfigError(
        f"no answer from the coordinator ({change or 'not connected'})",
        hint="is this node approved and not revoked, and is the coordinator's roster up to date?",
    )
