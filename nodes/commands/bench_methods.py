"""The methods of `secagg bench detection`: those of `fl_core`, and ours through the protocol."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from secagg.errors import ConfigError
from secagg.schemes import SCHEMES

if TYPE_CHECKING:
    from fl_core.contender_encoders import Recipe
    from fl_core.contenders import Contender
    from fl_core.public_bank import PublicBank

__all__ = ["chosen_methods"]

_TITLES: Final = {"masking": "ours, under masking", "ckks": "ours, under ckks"}


def chosen_methods(
    recipe: Recipe, rounds: int, only: Sequence[str], columns: Sequence[str], *, ablations: bool
) -> list[Contender]:
    """Return the methods of the table, or those whose names match one of the patterns.

    Args:
        recipe: What ours is.
        rounds: Of every federation.
        only: Patterns such as `ours*`; () for all.
        columns: Names of the columns of a row.
        ablations: Also ours with one part changed at a time.

    Raises:
        ConfigError: no name matches.
    """
    from fl_core.contender_baselines import baselines
    from fl_core.contender_encoders import encoders
    from fl_core.layouts import blocks_for, is_misread

    bank = _bank(columns) if ablations else None
    blocks = blocks_for(columns)
    recipe = replace(recipe, config=replace(recipe.config, blocks=blocks))
    layout = not is_misread(columns)
    trained = encoders(rounds=rounds, ablations=ablations, bank=bank, recipe=recipe, layout=layout)
    known = [*baselines(recipe.window - 1), *trained, *_protected(recipe, rounds)]
    chosen = [
        each
        for each in known
        if not only or any(fnmatch.fnmatchcase(each.name, pattern) for pattern in only)
    ]
    if not chosen:
        raise ConfigError(
            f"no method is called {' or '.join(map(repr, only))}",
            hint=f"there are: {'; '.join(each.name for each in known)}",
        )
    return chosen


def _bank(columns: Sequence[str]) -> PublicBank | None:
    """Return the built-in public rows, where they have these columns."""
    from fl_core.errors import ModelError
    from fl_core.public_bank import PublicBank

    try:
        return PublicBank.builtin(columns)
    except ModelError:
        return None


def _protected(recipe: Recipe, rounds: int) -> list[Contender]:
    """Return our training through the whole protocol, by every scheme that can run here."""
    import numpy as np
    from numpy.typing import NDArray

    from fl_core.config import ModelConfig
    from fl_core.contender_encoders import encoder_contender
    from fl_core.contenders import Rows
    from nodes.rehearsal import simulate_training

    def contender(scheme: str) -> Contender:
        def train(
            rows: Rows, model: ModelConfig, seed: int
        ) -> tuple[NDArray[np.float32], float | None]:
            return simulate_training(
                rows,
                model,
                recipe.config,
                rounds=rounds,
                scheme=scheme,
                seed=seed,
                update_bound=recipe.update_bound,
            )

        return encoder_contender(_TITLES[scheme], recipe.model, train, gap=recipe.window - 1)

    found = []
    for scheme in _TITLES:
        try:
            SCHEMES[scheme].check()
        except ConfigError as error:
            click.echo(f"left out: {_TITLES[scheme]}: {error}", err=True)
            continue
        found.append(contender(scheme))
    return found
