"""The time-frequency transformer: a window of a series, reconstructed twice.

One path sees the window as time steps, the other as frequencies. Each stage of a path squeezes
what it sees into one narrow code and gives the window back from it. What is usual both give back
alike; what is not comes back wrong from at least one of them, and then they disagree as well. These
discrepancies are the embedding, so heads, thresholds and files of the perceptron serve here too.

Source: seed 003 (abstract and introduction), which gives no formula. specs/90-learning.md section
11 says what is ours: nearly all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_core.architectures import ATTENTION_HEADS
from fl_core.encoder_base import Encoder, squash

if TYPE_CHECKING:
    from fl_core.config import ModelConfig

__all__ = ["Path", "Reconstruction", "Stage", "TimeFrequencyEncoder"]

FLOOR: Final = 1e-6
"""Added to a variance before its root: spreads far below the noise are all alike."""

TREND_SHARE: Final = 4
"""Residuals are taken of the last time step, for an alert that says "now", and over W / 4 steps."""

SPREAD_GAIN: Final = 3.0
"""Factor of the spreads against the residuals. Spreads do not see a level that drifts, as sensors'
levels do, so they weigh more; residuals see the exact relation of channels, step by step."""


def _normed(values: Tensor) -> Tensor:
    """Bring the last axis to mean 0 and variance 1; gain and offset are the next layer's."""
    return functional.layer_norm(values, values.shape[-1:])


def _variance_in_time(errors: Tensor) -> Tensor:
    """Return the variance over the steps of (stages, B, W, C).

    `Tensor.var` is fifteen times slower over an axis that is not the last.
    """
    return (errors - errors.mean(dim=2, keepdim=True)).square().mean(dim=2)


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """What the two paths make of a batch of windows."""

    time: tuple[Tensor, ...] = field(repr=False)
    """One reconstruction a stage of the time path, each of shape (B, W, C)."""

    frequency: tuple[Tensor, ...] = field(repr=False)
    """One a stage of the frequency path, brought back to time, each of shape (B, W, C)."""

    time_code: Tensor = field(repr=False)
    """Code of the time path's last stage, shape (B, width)."""

    frequency_code: Tensor = field(repr=False)
    """Code of the frequency path's last stage, shape (B, width)."""

    def loss(self, target: Tensor) -> Tensor:
        """Return the mean squared error of each path, averaged over its stages, both added up.

        Args:
            target: What should have come back, shape (B, W, C).

        Returns:
            Scalar, at least 0. The frequency path's error is the mean squared error of its
            spectrum: the transform is orthonormal.

        Source: seed 003, third contribution; specs/90-learning.md L-42.
        """
        return _stage_mean(self.time, target) + _stage_mean(self.frequency, target)


def _stage_mean(stages: tuple[Tensor, ...], target: Tensor) -> Tensor:
    return torch.stack([(target - found).square().mean() for found in stages]).mean()  # L-42


class Stage(nn.Module):
    """One attention block, the code of what it sees, and the reconstruction from the code."""

    def __init__(self, tokens: int, features: int, width: int) -> None:
        super().__init__()
        self.gather_table = nn.Parameter(torch.empty(tokens, width))
        self.spread_table = nn.Parameter(torch.empty(tokens, width))
        self.mix = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.widen = nn.Linear(width, width)
        self.narrow = nn.Linear(width, width)
        self.code = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.out = nn.Linear(width, features)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take tokens (B, T, width); return new ones, the code (B, width) and (B, T, features).

        The code is normed, so that what comes back is bounded whatever goes in: a deviation of
        unheard-of size cannot be given back.
        """
        h = h + self._attend(_normed(h))  # (B, T, width)
        h = h + self.narrow(functional.gelu(self.widen(_normed(h))))
        code = _normed(self.code((_normed(h) * self.gather_table).mean(dim=1)))  # (B, width)
        gates = functional.gelu(self.gate(code))  # (B, width)
        back: Tensor = self.out(gates[:, None, :] * self.spread_table)  # (B, T, features)
        return h, code, back

    def _attend(self, h: Tensor) -> Tensor:
        batch, tokens, width = h.shape
        split = self.mix(h).view(batch, tokens, 3, ATTENTION_HEADS, width // ATTENTION_HEADS)
        q, k, v = split.permute(2, 0, 3, 1, 4)  # each (B, heads, T, width / heads)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        joined: Tensor = self.join(mixed.reshape(batch, tokens, width))
        return joined


class Path(nn.Module):
    """Stages over the tokens of one domain."""

    def __init__(self, tokens: int, features: int, width: int, stages: int) -> None:
        super().__init__()
        self.position_table = nn.Parameter(torch.empty(tokens, width))
        self.embed = nn.Linear(features, width)
        self.stages = nn.ModuleList(Stage(tokens, features, width) for _ in range(stages))

    def forward(self, tokens: Tensor) -> tuple[list[Tensor], Tensor]:
        """Take (B, T, features); return a reconstruction a stage, alike, and the last code."""
        h = self.embed(tokens) + self.position_table  # (B, T, features) -> (B, T, width)
        found = []
        for stage in self.stages:
            h, code, back = stage(h)
            found.append(back)
        return found, code


class TimeFrequencyEncoder(Encoder):
    """Two paths over a window of W steps and C channels; embeds where both go wrong.

    Rows are flattened windows, oldest step first: column t C + c is channel c at step t.
    """

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.window, self.channels = model.window, model.input_dim // model.window
        self.embedding_dim = model.embedding_dim
        (width,) = model.hidden
        self.time = Path(self.window, self.channels, width, model.stages)
        self.frequency = Path(self.window // 2 + 1, 2 * self.channels, width, model.stages)

    def forward(self, rows: Tensor) -> Tensor:
        """Embed normalised rows.

        Args:
            rows: Shape (B, W C), float32.

        Returns:
            z, shape (B, 7 C), float32, not yet standardised: see `discrepancies`.
        """
        return self.discrepancies(self.windows(rows), self.reconstruct(rows))

    def windows(self, rows: Tensor) -> Tensor:
        """Squash rows (B, W C) and give them their shape (B, W, C)."""
        return squash(rows).view(-1, self.window, self.channels)

    def reconstruct(self, rows: Tensor) -> Reconstruction:
        """Give rows of shape (B, W C) back by both paths."""
        x = self.windows(rows)  # (B, W, C)
        spectrum = torch.fft.rfft(x, dim=1, norm="ortho")  # (B, W // 2 + 1, C), complex
        time, time_code = self.time(x)
        parts, frequency_code = self.frequency(torch.cat((spectrum.real, spectrum.imag), dim=2))
        frequency = [self._to_time(each) for each in parts]
        return Reconstruction(tuple(time), tuple(frequency), time_code, frequency_code)

    def _to_time(self, parts: Tensor) -> Tensor:
        """Take real and imaginary parts (B, W // 2 + 1, 2 C) back to time steps (B, W, C)."""
        real, imaginary = parts.chunk(2, dim=2)
        spectrum = torch.complex(real, imaginary)
        back: Tensor = torch.fft.irfft(spectrum, n=self.window, dim=1, norm="ortho")
        return back

    def discrepancies(self, target: Tensor, found: Reconstruction) -> Tensor:
        """Embed how each path's reconstruction departs from the window, and both from each other.

        Args:
            target: Squashed windows, shape (B, W, C).
            found: What both paths make of them.

        Returns:
            Shape (B, 7 C). First the residuals of the last step, by the last stage: C of the time
            path, C of the frequency path; and the same of their means over the last W / 4 steps.
            Then `SPREAD_GAIN` sqrt(v + FLOOR), with v the variance over the window, averaged over
            the stages, of the residuals: C of the time path, C of the frequency path, C of the one
            path's reconstruction minus the other's.

        Source: seed 003, introduction; specs/90-learning.md L-43.
        """
        time, frequency = torch.stack(found.time), torch.stack(found.frequency)
        errors = (time - target, frequency - target, time - frequency)  # L-43, (stages, B, W, C)
        variances = [_variance_in_time(each).mean(dim=0) for each in errors]  # (B, C) each
        trend = slice(-max(1, self.window // TREND_SHARE), None)
        last = [each[-1, :, -1] for each in errors[:2]]
        steady = [each[-1, :, trend].mean(dim=1) for each in errors[:2]]
        spreads = SPREAD_GAIN * torch.sqrt(torch.cat(variances, dim=1) + FLOOR)  # (B, 3 C)
        return torch.cat((*last, *steady, spreads), dim=1)
