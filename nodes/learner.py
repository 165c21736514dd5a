"""Where the protocol meets the learning: from an offer's training settings to an update.

The one file of `nodes` that runs torch, through `fl_core`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from fl_core.architectures import RUN_KINDS
from fl_core.config import ModelConfig, TrainConfig
from fl_core.data.dataset import DeviceData
from fl_core.data.extractor import FEATURE_NAMES
from fl_core.data.series import window_layout
from fl_core.data.sources import BUILTIN, list_devices, load_device
from fl_core.detector import Detector
from fl_core.errors import DataError, ModelError
from fl_core.evaluation import evaluate, evaluate_device, round_seed, site_number
from fl_core.layouts import blocks_for, is_misread
from fl_core.parameters import initial_parameters
from fl_core.public_bank import PublicBank
from fl_core.training import LocalUpdate, check_objective, train_local
from nodes.config import DataSection
from nodes.session.training_settings import Training, parse_training
from nodes.threads import use_one_blas_thread
from secagg.dp.sampler import sampler_for
from secagg.dp.terms import DISCRETE_GAUSSIAN

__all__ = ["Finished", "Learner", "exact_noise", "load_data", "load_public", "use_one_thread"]


_TRAFFIC: Final = {
    len(names): names
    for names in (
        FEATURE_NAMES,
        tuple(name for name in FEATURE_NAMES if not name.startswith("HH_jit_")),
    )
}
"""Columns that rows of N-BaIoT's width are taken to have where an offer names none."""


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """What a node has at the end of a run."""

    detector: Detector = field(repr=False)
    quality: dict[str, dict[str, float | int]]
    """Method to its numbers on this node's test rows."""


def exact_noise(count: int, variance: float) -> NDArray[np.int64]:
    """Return draws of the discrete Gaussian with that variance, from this machine's secrets.

    Source: specs/51-sampler.md.
    """
    return sampler_for(DISCRETE_GAUSSIAN, variance).draw(count, os.urandom).astype(np.int64)


def use_one_thread() -> None:
    """Keep torch and BLAS to one thread: nodes share machines, and one thread is deterministic."""
    torch.set_num_threads(1)
    use_one_blas_thread()


def load_data(section: DataSection, folder: Path = Path()) -> DeviceData:
    """Load a node's rows as its configuration says.

    Args:
        section: The table [data].
        folder: Of the file that it is in: a relative source is relative to it.

    Raises:
        DataError: with file, row, column and mend.
    """
    device, source = section.device, section.source
    if source != BUILTIN:
        source = str(folder / source)
    if not device:
        devices = list_devices(source)
        if len(devices) != 1:
            raise DataError(
                f"{source} has {len(devices)} devices and data.device names none",
                hint=f"set data.device to one of: {', '.join(devices)}",
            )
        device = devices[0]
    data = load_device(source, device, seed=section.seed, window=section.window, drop=section.drop)
    return replace(data, device=section.name) if section.name else data


def load_public(section: DataSection, folder: Path = Path()) -> PublicBank | None:
    """Load the public rows that a node's configuration names, if it names any.

    Args:
        section: The table [data].
        folder: As of `load_data`.

    Raises:
        DataError: with file, row, column and mend.
        ModelError: too few or too many rows.
    """
    if not section.public:
        return None
    named = msgspec.structs.replace(section, source=section.public, device="", name="")
    data = load_data(named, folder)
    return PublicBank.from_rows(data.feature_names, data.train)


class Learner:
    """Trains on one node's rows and makes its detector.

    Under MOON it keeps the parameters of its last training in memory, and nowhere else: after a
    restart there are none, and the term is off in the next round, as in the first.

    Args:
        data: The node's rows.
        node_id: For the derivation of seeds.
        max_fpr: Rate the threshold is set for.
        baselines: Also evaluate local-only training and a random encoder.
        public: Rows that are nobody's secret, for training that protects single rows; the built-in
            ones if None.
    """

    def __init__(
        self,
        data: DeviceData,
        node_id: str,
        *,
        max_fpr: float,
        baselines: bool = False,
        public: PublicBank | None = None,
    ) -> None:
        self.data, self._node_id = data, node_id
        self._max_fpr, self._baselines = max_fpr, baselines
        self._public = public
        self._last: tuple[tuple[bytes, bytes], NDArray[np.float32]] | None = None
        use_one_thread()

    def accept(self, training: bytes, reference: NDArray[np.float32]) -> None:
        """Check an offer's settings against this node's columns; looks at no row.

        Raises:
            DataError: the model is for other columns.
            ModelError: the settings are out of range.
        """
        settings = self._settings(training)
        model = settings.model
        self._bank(settings.train)
        check_objective(model, settings.train)
        if len(reference) != model.embedding_dim:
            raise ModelError(
                f"a reference of {len(reference)} values for {model.embedding_dim} dimensions"
            )

    def train(
        self,
        training: bytes,
        params: NDArray[np.float32],
        reference: NDArray[np.float32],
        round_id: int,
        *,
        run: bytes,
    ) -> LocalUpdate:
        """Train one round of a run.

        Raises:
            DataError: the model is for other columns.
            ModelError: the settings or the training went wrong.
        """
        settings, last = self._settings(training), self._last
        update = train_local(
            params,
            reference,
            self.data.train,
            self.data.validation,
            model=settings.model,
            config=settings.train,
            seed=round_seed(settings.seed, round_id, self._node_id, "train"),
            previous=last[1] if last and last[0] == (run, training) else None,  # L-52
            site=site_number(self._node_id),
            bank=self._bank(settings.train),
            secret=os.urandom,
            noise=exact_noise,
        )
        if settings.train.moon_weight:
            self._last = (run, training), params + update.delta
        return update

    def _bank(self, train: TrainConfig) -> PublicBank | None:
        """Return the public rows that the settings ask for, if any.

        Raises:
            ModelError: there are none with this node's columns, or they are others.
        """
        if not (train.private or train.public_negatives):
            return None
        names = self.data.feature_names
        bank = self._public or PublicBank.builtin(names)
        bank.check(len(names), train.bank_digest or bank.digest)
        return bank

    def finish(self, training: bytes, params: NDArray[np.float32], rounds: int) -> Finished:
        """Fit this node's detector to the final model and measure it on the node's test rows.

        Raises:
            DataError: the rows are too few.
            ModelError: the model does not fit.
        """
        settings, data = self._settings(training), self.data
        bank = self._bank(settings.train)
        normaliser = bank.normaliser if bank and settings.train.private else None
        detector = Detector.fit_head(
            params,
            settings.model,
            data.train,
            data.validation,
            device=data.device,
            feature_names=data.feature_names,
            max_fpr=self._max_fpr,
            normaliser=normaliser,
        ).with_provenance({"rounds": rounds, "training": training.decode()})
        if not len(data.test_benign) or not len(data.test_attack):
            return Finished(detector, {})
        if self._baselines:
            table = evaluate_device(
                data,
                params,
                initial_parameters(settings.model, settings.seed),
                model=settings.model,
                config=settings.train,
                rounds=max(1, rounds),
                seed=settings.seed,
                max_fpr=self._max_fpr,
                normaliser=normaliser,
            )
        else:
            threshold = detector.threshold()
            quality = evaluate(detector.score, threshold, data.test_benign, data.test_attack)
            table = {"federated": quality}
        return Finished(detector, {method: row.to_dict() for method, row in table.items()})

    def _settings(self, training: bytes) -> Training:
        """Return an offer's settings, with the runs of this node's columns where it names none.

        Raises:
            DataError: the model is for other columns.
            ModelError: the settings are out of range.
        """
        settings = parse_training(training)
        self._check_columns(settings.model, settings.columns)
        if settings.train.blocks:
            return settings
        blocks = blocks_for(self.data.feature_names)
        return replace(settings, train=replace(settings.train, blocks=blocks))

    def _check_columns(self, model: ModelConfig, wanted: tuple[str, ...]) -> None:
        names = self.data.feature_names
        channels, length = window_layout(names)
        if model.window not in (1, length):  # L-37
            raise DataError(
                f"the offered model takes windows of {model.window} time steps, this node's rows "
                f"have {length}",
                hint="all nodes' data.window and [model] window must agree",
            )
        if model.input_dim != len(names):
            raise DataError(
                f"the offered model takes {model.input_dim} features, this node has {len(names)}",
                hint="all nodes and [model] input_dim must agree on the columns (data.drop)",
            )
        wanted = wanted or (_TRAFFIC.get(len(names), ()) if length == 1 else ())
        if wanted and channels != wanted:  # S-23: the refusal tells no name of the node's own
            pairs = zip(channels, wanted, strict=False)
            shorter = min(len(channels), len(wanted))
            odd = next((i for i, (own, other) in enumerate(pairs) if own != other), shorter)
            named = repr(wanted[odd]) if odd < len(wanted) else "nothing"
            raise DataError(
                f"column {odd + 1} is {named} in the offer, and something else at this node",
                hint="give all nodes the same columns in the same order (data.drop leaves some "
                "out), and name them in [run] columns at the coordinator",
            )
        if model.window == 1 and model.kind in RUN_KINDS and is_misread(names):
            raise DataError(
                f"a {model.kind} encoder takes {len(names)} columns for the traffic statistics of "
                "N-BaIoT, and this node's are others",
                hint='take kind = "mlp", or other columns (data.drop)',
            )
