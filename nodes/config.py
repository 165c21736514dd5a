"""Configuration files: the only door from TOML to checked settings.

Every table is an msgspec Struct that refuses unknown keys; each field is followed by its meaning,
which `secagg config init` prints into the file it writes. Relative paths are relative to the file.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fl_core.config import ModelConfig, TrainConfig
from fl_core.errors import ModelError
from fl_core.server_opt import ServerOptConfig
from nodes.session.offer import NodePolicy
from nodes.session.plan import WEIGHT_MODES, RunPlan
from secagg.assumptions import DEFAULT_COLLUSION, DEFAULT_DROPOUT
from secagg.errors import ConfigError
from secagg.schemes import SCHEMES

__all__ = [
    "CoordinatorConfig",
    "CoordinatorSection",
    "DataSection",
    "DetectionSection",
    "NodeConfig",
    "NodeSection",
    "PolicySection",
    "RunSection",
    "Settings",
    "UnlockSection",
    "check_endpoint",
    "load_coordinator_config",
    "load_node_config",
    "training_bytes",
]

T = TypeVar("T", bound="Settings")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Common options of every table."""


class UnlockSection(Settings, frozen=True):
    """How to open encrypted keys; leave empty for keys that are not encrypted."""

    passphrase_file: str = ""
    """File whose first line is the passphrase; the variable SECAGG_PASSPHRASE works as well."""
    key_file: str = ""
    """File of at least 32 random bytes."""


class CoordinatorSection(Settings, frozen=True):
    """Where the coordinator is."""

    keys: str
    """Folder made by `secagg keys request` and `install`."""
    state: str
    """Folder of the checkpoint; a restart goes on from it."""
    bind: str = "tcp://0.0.0.0:7710"
    """Endpoint to listen on."""


class RunSection(Settings, frozen=True):
    """What a run is."""

    rounds: int = 8
    """Rounds with a result."""
    min_nodes: int = 3
    """Fewest nodes a round starts with; also two more than may collude."""
    scheme: str = "masking"
    """How updates are summed. `masking` sends fewest bytes and runs anywhere; `ckks` needs TenSEAL,
    takes fewer exchanges, and lets the coordinator weigh the nodes."""
    weights: str = "private"
    """Who applies a node's consistency weight: `private` is the node itself, which discloses
    nothing; `coordinator` (under `ckks` only) is told each node's distance from the others, smooths
    it over rounds, leaves outliers out, and weighs encrypted updates by 1 to 3."""
    allow_insecure: bool = False
    """Allow `insecure-plain`, under which the coordinator reads every update."""
    seed: int = 0
    """Seed of the initial model and of local training; no secret depends on it."""
    value_bits: int = 16
    """Bits of one node's integers."""
    dropout: float = DEFAULT_DROPOUT
    """Fraction of a round's nodes that may drop out and it still ends with a sum; it is less where
    not all active nodes of the roster take part."""
    collusion: float = DEFAULT_COLLUSION
    """Fraction of the roster's active nodes that may side with a malicious coordinator and learn
    nothing, even if all of them are in one round."""
    update_bound: float = 4.0
    """L2 bound of a node's weighted update; longer ones are scaled down and counted."""
    join_timeout: float = 20.0
    """Seconds to wait for absent nodes before the first round starts without them."""
    give_up: float = 3600.0
    """Seconds without enough nodes after which the run ends."""
    phase_timeout: float = 30.0
    """Seconds for each exchange of a round."""
    input_timeout: float = 600.0
    """Seconds for local training."""
    heartbeat: float = 2.0
    """Seconds between signs of life."""
    liveness: float = 10.0
    """Seconds of silence after which a node counts as gone."""
    max_failures: int = 10
    """Aborted rounds in a row after which the run ends."""
    farewell_timeout: float = 30.0
    """Seconds at the end in which nodes that took part and are gone may come for the model."""


class CoordinatorConfig(Settings, frozen=True):
    """The whole of coordinator.toml."""

    coordinator: CoordinatorSection
    unlock: UnlockSection = UnlockSection()
    run: RunSection = RunSection()
    model: dict[str, Any] = {}
    train: dict[str, Any] = {}
    server: dict[str, Any] = {}
    folder: Path = Path()

    def model_config(self) -> ModelConfig:
        """Return the checked [model] table."""
        with _blaming("model"):
            return ModelConfig.from_dict({"input_dim": 115, **self.model})

    def train_config(self) -> TrainConfig:
        """Return the checked [train] table."""
        with _blaming("train"):
            return TrainConfig.from_dict(self.train)

    def server_config(self) -> ServerOptConfig:
        """Return the checked [server] table."""
        with _blaming("server"):
            return ServerOptConfig.from_dict(self.server)

    def plan(self) -> RunPlan:
        """Return what the session runs.

        Raises:
            ConfigError: a setting is out of range or at odds with another.
        """
        run = self.run
        if run.scheme == "insecure-plain" and not run.allow_insecure:
            raise ConfigError(
                "run.scheme = 'insecure-plain' lets the coordinator read every update",
                hint="use 'masking', or set run.allow_insecure = true for a measurement",
            )
        model = self.model_config()
        if model.embedding_dim > 1 << 14:
            raise ConfigError(
                f"[model] embedding_dim is {model.embedding_dim}",
                hint="the reference travels in the offer; use at most 16384",
            )
        if not 0 <= run.seed < 1 << 53:
            raise ConfigError(f"run.seed is {run.seed}", hint="use 0 or more")
        return RunPlan(
            rounds=run.rounds,
            min_nodes=run.min_nodes,
            training=training_bytes(model, self.train_config(), run.seed, run.rounds),
            scheme=run.scheme,
            weights=run.weights,
            value_bits=run.value_bits,
            dropout=run.dropout,
            collusion=run.collusion,
            update_bound=run.update_bound,
            # |centroid|^2 <= embedding_dim since embeddings are standardised (specs/90 L-06)
            centroid_bound=float(model.embedding_dim) ** 0.5,
            join_timeout=run.join_timeout,
            give_up=run.give_up,
            phase_timeout=run.phase_timeout,
            input_timeout=run.input_timeout,
            heartbeat=run.heartbeat,
            liveness=run.liveness,
            max_failures=run.max_failures,
            farewell_timeout=run.farewell_timeout,
        )


class NodeSection(Settings, frozen=True):
    """Where the node is and whom it works with."""

    keys: str
    """Folder made by `secagg keys request` and `install`."""
    state: str
    """Folder for the node's memory, its detector and its report."""
    coordinator: str
    """Endpoint of the coordinator, such as tcp://coordinator.example:7710."""


class DataSection(Settings, frozen=True):
    """The data this node trains on; it never leaves the machine."""

    source: str
    """`builtin`, an .npz file, a folder in the UCI or flat N-BaIoT layout, or a CSV file."""
    device: str = ""
    """Which device of the source; may be left empty where the source has only one."""
    name: str = ""
    """What the detector calls the device; its name in the source if left empty."""
    drop: tuple[str, ...] = ()
    """Columns to leave out, as patterns such as "HH_jit_*"."""
    seed: int = 0
    """Seed of the built-in data and of splits that need one."""


class PolicySection(Settings, frozen=True):
    """What this node agrees to; the coordinator cannot override it."""

    min_cohort: int = 3
    """Fewest nodes a round may have been offered to."""
    schemes: tuple[str, ...] = ("masking",)
    """Schemes this node takes part in: `masking`, `ckks`."""
    weights: tuple[str, ...] = ("private",)
    """Who may apply this node's consistency weight: `private` is the node itself; `coordinator`, a
    choice under `ckks`, also has the node disclose one number a round, how far its data stand from
    the others'."""
    collusion: float = DEFAULT_COLLUSION
    """Fraction of the roster's active nodes that may collude with the coordinator: a round must
    withstand it even if all of them are in it."""


class DetectionSection(Settings, frozen=True):
    """The detector that the node makes of the final model."""

    max_fpr: float = 0.01
    """False-positive rate its threshold is set for, on the node's own benign validation rows."""
    baselines: bool = False
    """Also train alone and test a random encoder, and write the comparison into report.json."""


class NodeConfig(Settings, frozen=True):
    """The whole of node.toml."""

    node: NodeSection
    data: DataSection
    unlock: UnlockSection = UnlockSection()
    policy: PolicySection = PolicySection()
    detection: DetectionSection = DetectionSection()
    folder: Path = Path()

    def node_policy(self) -> NodePolicy:
        """Return the policy that offers are held against.

        Raises:
            ConfigError: a cohort below 3 hides nobody.
        """
        if self.policy.min_cohort < 3:
            raise ConfigError(
                f"policy.min_cohort is {self.policy.min_cohort}",
                hint="a sum over fewer than 3 nodes hides nobody; use 3 or more",
            )
        policy = self.policy
        if not 0 <= policy.collusion < 0.5:
            raise ConfigError(
                f"policy.collusion is {policy.collusion:g}",
                hint="use at least 0 and less than 0.5; the default is 0.33, just below a third",
            )
        _check_choices("schemes", policy.schemes, tuple(SCHEMES))
        _check_choices("weights", policy.weights, WEIGHT_MODES)
        if policy.weights == ("coordinator",) and "ckks" not in policy.schemes:
            raise ConfigError(
                "policy.weights allows only 'coordinator', which only the scheme ckks has",
                hint="add 'ckks' to policy.schemes, or 'private' to policy.weights",
            )
        return NodePolicy(policy.min_cohort, policy.schemes, policy.collusion, policy.weights)


def _check_choices(key: str, chosen: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Refuse a list of the policy that allows nothing, or something that does not exist."""
    secure = [name for name in known if name != "insecure-plain"]
    hint = f"use one or more of: {', '.join(secure)}"
    if not chosen:
        raise ConfigError(f"policy.{key} is empty: every round would be refused", hint=hint)
    for name in chosen:
        if name not in known:
            raise ConfigError(f"policy.{key} has no choice {name!r}", hint=hint)


class _blaming:  # noqa: N801 - reads as a statement
    """Turn a ModelError of a table into a ConfigError that names the table."""

    def __init__(self, table: str) -> None:
        self._table = table

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ModelError):
            raise ConfigError(f"[{self._table}]: {error}", hint=error.hint) from error


def training_bytes(model: ModelConfig, train: TrainConfig, seed: int, rounds: int) -> bytes:
    """Return the canonical JSON that tells nodes how to train; it is part of the signed offer."""
    value = {
        "model": model.to_dict(),
        "train": train.to_dict(),
        "seed": seed,
        "rounds": rounds,
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def load_coordinator_config(path: Path) -> CoordinatorConfig:
    """Read coordinator.toml.

    Raises:
        ConfigError: with the file, the key and the reason.
    """
    config = _load(path, CoordinatorConfig)
    try:
        check_endpoint(config.coordinator.bind, "coordinator.bind", any_port=True)
        config.plan()
        config.server_config()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error
    return config


def load_node_config(path: Path) -> NodeConfig:
    """Read node.toml.

    Raises:
        ConfigError: with the file, the key and the reason.
    """
    config = _load(path, NodeConfig)
    try:
        check_endpoint(config.node.coordinator, "node.coordinator")
        config.node_policy()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error
    return config


def _load(path: Path, kind: type[T]) -> T:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}", hint="write one with `secagg config init`"
        ) from error
    try:
        values = tomllib.loads(text)
        return msgspec.structs.replace(msgspec.convert(values, kind), folder=path.parent)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", hint="see the TOML syntax at toml.io") from error
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{path}: {_readable(error)}",
            hint="`secagg config init` writes a file with every key explained",
        ) from error


def _readable(error: msgspec.ValidationError) -> str:
    """Turn "Object contains unknown field `x` - at `$.run`" into "run.x is not a setting"."""
    found = re.fullmatch(
        r"Object contains unknown field `([^`]*)`(?: - at `\$\.([^`]*)`)?", str(error)
    )
    if found is None:
        return str(error)
    key, table = found[1], found[2]
    sections = {**_tables(CoordinatorConfig), **_tables(NodeConfig)}
    known = list(sections if table is None else sections.get(table, ()))
    near = difflib.get_close_matches(key, known, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"{f'{table}.{key}' if table else f'[{key}]'} is not a setting{meant}"


def _tables(kind: type) -> dict[str, tuple[str, ...]]:
    return {
        field.name: getattr(field.type, "__struct_fields__", ())
        for field in msgspec.structs.fields(kind)
    }


def check_endpoint(text: str, key: str, *, any_port: bool = False) -> None:
    """Refuse what ZeroMQ would misread: it takes a port above 65535 for another port.

    Raises:
        ConfigError: `text` is not ``tcp://host:port``.
    """
    found = re.fullmatch(r"tcp://(\[[0-9a-fA-F:.]+\]|[^/:\s]+):(\*|[0-9]{1,5})", text)
    port = found[2] if found else ""
    good = (port == "*" and any_port) or (port.isdigit() and 0 < int(port) < 65_536)
    if not good:
        raise ConfigError(
            f"{key} is {text!r}", hint="use tcp://host:port with a port from 1 to 65535"
        )
