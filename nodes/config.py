"""Configuration files: the only door from TOML to checked settings.

Every table is an msgspec Struct that refuses unknown keys; each field is followed by its meaning,
which `secagg config init` prints into the file it writes. Relative paths are relative to the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fl_core.config import ModelConfig, TrainConfig
from fl_core.errors import ModelError
from fl_core.server_opt import ServerOptConfig
from nodes.policy_file import PolicySection, load_policy, origin_of, to_policy
from nodes.session.plan import RunPlan
from nodes.session.policy import NodePolicy, PolicyOrigin
from nodes.session.privacy import RECORD, PrivacySettings
from nodes.toml_files import Settings, key_lines, parse_settings, read_text
from secagg.assumptions import DEFAULT_COLLUSION, DEFAULT_DROPOUT
from secagg.errors import ConfigError

__all__ = [
    "CoordinatorConfig",
    "CoordinatorSection",
    "DataSection",
    "DetectionSection",
    "NodeConfig",
    "NodeSection",
    "PolicySection",
    "PrivacySection",
    "RunSection",
    "Settings",
    "UnlockSection",
    "check_endpoint",
    "load_coordinator_config",
    "load_node_config",
    "training_bytes",
]


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
    columns: tuple[str, ...] = ()
    """Columns that every node's rows have to have, by name and in this order; of windows, the
    channels. A node with others refuses. Left empty, nobody notices nodes whose columns mean
    different things, but for N-BaIoT's 115, or 100 without `HH_jit_*`: rows as wide have to be
    those."""
    value_bits: int = 16
    """Bits of one node's integers."""
    dropout: float = DEFAULT_DROPOUT
    """Fraction of a round's nodes that may drop out and it still ends with a sum; it is less where
    not all active nodes of the roster take part."""
    collusion: float = DEFAULT_COLLUSION
    """Fraction of the roster's active nodes that may side with a malicious coordinator and learn
    nothing, even if all of them are in one round."""
    update_bound: float = 4.0
    """L2 bound of a node's weighted update; longer ones are scaled down and counted. Enough for the
    defaults of [train]; an encoder of kind "timefreq" at a learning rate of 0.005 wants 16."""
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


class PrivacySection(Settings, frozen=True):
    """Differential privacy of the run, and its budget."""

    unit: str = "none"
    """Whom noise protects. `client`: a whole node, by noise that all nodes add inside the secure
    sum; it takes hundreds of nodes to be useful. `record`: one row of a node's data, by noise in
    the node's own training. `none`: nobody."""
    epsilon: float = 8.0
    """Budget: the run ends before a round that would spend more. What was spent in earlier runs
    from the same state folder counts."""
    delta: float = 1e-5
    """Probability with which the bound may fail; well below one in the number of units."""
    mechanism: str = "discrete-gaussian"
    """Noise of the unit `client`: `discrete-gaussian` or `skellam`."""
    noise_multiplier: float = 0.0
    """Standard deviation of the noise over the sensitivity; 0 takes the least with which all rounds
    fit into the budget."""
    clip: float = 1.0
    """Unit `client`: greatest L2 norm of what one node contributes, or where it starts if it
    adapts."""
    scale_bits: int = 12
    """Unit `client`: how finely the clip is cut into integers."""
    rotation: bool = True
    """Unit `client`: rotate vectors at random before rounding, which saves bits on the wire."""
    excess_levels: int = -1
    """Unit `client`: at how many levels noise that was added for dropouts is taken back if they do
    not happen; 0 leaves it in. -1 takes 4 for models of up to 262 144 parameters and 0 for larger
    ones, where it would take longer than the rest of the round."""
    quantile: float = 0.0
    """Unit `client`: let the clip adapt until this fraction of the nodes is within it; 0 keeps it
    fixed."""
    clip_rate: float = 0.2
    """Unit `client`: how fast the clip adapts."""
    spare: float = 0.1
    """Part of the rounds that may abort, which costs budget as well."""
    drop: tuple[str, ...] = ()
    """Unit `record`: the columns that the nodes leave out, as in their data.drop: which public rows
    they normalise by depends on it."""
    epoch_rounds: int = 0
    """Unit `client`: rounds over which noise is correlated, so that later rounds take back some of
    it; 0 draws it anew in every round. For nodes that stay, and train in few rounds: set
    excess_levels = 0 with it."""
    separation: int = 4
    """With `epoch_rounds`: rounds from one contribution of a node to its next."""


class CoordinatorConfig(Settings, frozen=True):
    """The whole of coordinator.toml."""

    coordinator: CoordinatorSection
    unlock: UnlockSection = UnlockSection()
    run: RunSection = RunSection()
    privacy: PrivacySection = PrivacySection()
    model: dict[str, Any] = msgspec.field(default_factory=dict)
    train: dict[str, Any] = msgspec.field(default_factory=dict)
    server: dict[str, Any] = msgspec.field(default_factory=dict)
    folder: Path = Path()

    def model_config(self) -> ModelConfig:
        """Return the checked [model] table."""
        with _blaming("model"):
            return ModelConfig.from_dict({"input_dim": 115, **self.model})

    def train_config(self) -> TrainConfig:
        """Return the checked [train] table, with noise where rows are protected.

        Raises:
            ConfigError: a setting is out of range or at odds with another.
        """
        with _blaming("train"):
            if self.privacy.unit == RECORD:
                from nodes.record_training import record_training  # on use: it simulates traffic

                return record_training(
                    self.train,
                    self.privacy_settings(),
                    rounds=self.run.rounds,
                    width=self.model_config().input_dim,
                    drop=self.privacy.drop,
                )
            train = TrainConfig.from_dict(self.train)
        if train.private:
            raise ConfigError(
                f"[train] private is {train.private!r}, and privacy.unit is {self.privacy.unit!r}",
                hint='set privacy.unit = "record", or leave [train] private empty',
            )
        return train

    def server_config(self) -> ServerOptConfig:
        """Return the checked [server] table."""
        with _blaming("server"):
            config = ServerOptConfig.from_dict(self.server)
        if self.privacy.epoch_rounds and config.kind != "fedavg":  # C-14
            raise ConfigError(
                f"[server] kind {config.kind!r} does not add rounds up, and correlated noise is "
                "taken back from such sums only",
                hint='set kind = "fedavg", or privacy.epoch_rounds = 0',
            )
        return config

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
        if run.columns and (
            len(set(run.columns)) < len(run.columns) or model.input_dim % len(run.columns)
        ):
            raise ConfigError(
                f"run.columns has {len(run.columns)} names for a [model] input_dim of "
                f"{model.input_dim}",
                hint="name every column once; of windows every channel",
            )
        if not 0 <= run.seed < 1 << 53:
            raise ConfigError(f"run.seed is {run.seed}", hint="use 0 or more")
        return RunPlan(
            rounds=run.rounds,
            min_nodes=run.min_nodes,
            training=training_bytes(model, self.train_config(), run.seed, run.rounds, run.columns),
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
            privacy=self.privacy_settings(),
        )

    def privacy_settings(self) -> PrivacySettings:
        """Return the checked [privacy] table.

        Raises:
            ConfigError: a setting is out of range or at odds with another.
        """
        settings = msgspec.structs.asdict(self.privacy)
        del settings["drop"]  # of the training
        return PrivacySettings(**settings)


class NodeSection(Settings, frozen=True):
    """Where the node is and whom it works with."""

    keys: str
    """Folder made by `secagg keys request` and `install`."""
    state: str
    """Folder for the node's memory, its detector and its report."""
    coordinator: str
    """Endpoint of the coordinator, such as tcp://coordinator.example:7710."""
    policy: str = ""
    """File of what this node agrees to, such as policy.toml; `secagg config init policy` writes
    one. Left empty, the table [policy] of this file holds."""


class DataSection(Settings, frozen=True):
    """The data this node trains on; it never leaves the machine."""

    source: str
    """`builtin`, an .npz file, a folder in the UCI or flat N-BaIoT layout, a folder of SKAB or ASD
    series, or a CSV file."""
    device: str = ""
    """Which device of the source; may be left empty where the source has only one."""
    name: str = ""
    """What the detector calls the device; its name in the source if left empty."""
    drop: tuple[str, ...] = ()
    """Columns to leave out, as patterns such as "HH_jit_*"; of windows, such as "Pressure@*"."""
    window: int = 1
    """Time steps in a row, for a folder of series or a CSV in time order; 1 for rows that stand
    alone. [model] input_dim is then window times the channels."""
    public: str = ""
    """Rows with the same columns that are nobody's secret, as for `source`: training that protects
    single rows normalises by them. Left empty, built-in ones for the traffic columns."""
    seed: int = 0
    """Seed of the built-in data and of splits that need one."""


class DetectionSection(Settings, frozen=True):
    """The detector that the node makes of the final model."""

    max_fpr: float = 0.01
    """False-positive rate its threshold is set for, on the node's own benign rows."""
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
    origin: PolicyOrigin = PolicyOrigin()
    """Where the policy was read from; no table, as `folder` is none."""

    def node_policy(self) -> NodePolicy:
        """Return the policy that offers are held against.

        Raises:
            ConfigError: a setting is out of range, at odds with another, or refuses every round.
        """
        return to_policy(self.policy, self.origin)


class _blaming:  # noqa: N801 - reads as a statement
    """Turn a ModelError of a table into a ConfigError that names the table."""

    def __init__(self, table: str) -> None:
        self._table = table

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ModelError):
            raise ConfigError(f"[{self._table}]: {error}", hint=error.hint) from error


def training_bytes(
    model: ModelConfig,
    train: TrainConfig,
    seed: int,
    rounds: int,
    columns: Sequence[str] = (),
) -> bytes:
    """Return the canonical JSON that tells nodes how to train; it is part of the signed offer."""
    value: dict[str, Any] = {
        "model": model.to_dict(),
        "train": train.to_dict(),
        "seed": seed,
        "rounds": rounds,
    }
    if columns:
        value["columns"] = list(columns)
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def load_coordinator_config(path: Path) -> CoordinatorConfig:
    """Read coordinator.toml.

    Raises:
        ConfigError: with the file, the key and the reason.
    """
    text = read_text(path)
    config = parse_settings(path, text, CoordinatorConfig)
    config = msgspec.structs.replace(config, folder=path.parent)
    try:
        check_endpoint(config.coordinator.bind, "coordinator.bind", any_port=True)
        config.plan()
        config.server_config()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error
    return config


def load_node_config(path: Path) -> NodeConfig:
    """Read node.toml, and the policy file that it names.

    Raises:
        ConfigError: with the file, the key and the reason.
    """
    text = read_text(path)
    config = parse_settings(path, text, NodeConfig)
    try:
        _check_policy_source(config, key_lines(text))
        _check_node_numbers(config)
        check_endpoint(config.node.coordinator, "node.coordinator")
        policy, origin = config.policy, origin_of(path.name, text, "policy")
        to_policy(policy, origin)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error
    if config.node.policy:
        policy, origin = load_policy(path.parent / config.node.policy)
    return msgspec.structs.replace(config, policy=policy, origin=origin, folder=path.parent)


def _check_policy_source(config: NodeConfig, lines: Mapping[tuple[str, ...], int]) -> None:
    """Refuse two policies: whichever was heeded, somebody would rely on the other (G-04)."""
    if ("origin",) in lines:
        raise ConfigError("[origin] is not a setting", hint="take it out")
    if config.node.policy and ("policy",) in lines:
        raise ConfigError(
            f"line {lines['policy',]}: a table [policy] beside "
            f'node.policy = "{config.node.policy}" of line {lines["node", "policy"]}',
            hint=f"move what the table says into {config.node.policy}, and take the table out",
        )


def _check_node_numbers(config: NodeConfig) -> None:
    """Refuse now what would be noticed when the run is over."""
    if not 0.0 < config.detection.max_fpr < 1.0:
        raise ConfigError(
            f"detection.max_fpr is {config.detection.max_fpr}",
            hint="use a rate between 0 and 1, such as 0.01",
        )
    if config.data.seed < 0 or config.data.window < 1:
        raise ConfigError(
            f"data.seed is {config.data.seed} and data.window {config.data.window}",
            hint="use a seed of 0 or more, and a window of 1 or more",
        )


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
