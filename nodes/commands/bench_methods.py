"""The methods of `secagg bench detection`: those of `fl_core`, and ours through the protocol."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from nodes.session.plan import MIN_NODES
from secagg.errors import ConfigError
from secagg.schemes import SCHEMES

if TYPE_CHECKING:
    from fl_core.contender_encoders import Recipe
    from fl_core.contenders import Contender
    from fl_core.public_bank import PublicBank

__all__ = ["chosen_methods"]

_TITLES: Final = {"masking": "ours, under masking", "ckks": "ours, under ckks"}


def chosen_methods(
    recipe: Recipe,
    rounds: int,
    only: Sequence[str],
    columns: Sequence[str],
    *,
    devices: int,
    ablations: bool,
) -> list[Contender]:
    """Return the methods of the table, or those whose names match one of the patterns.

    A method that cannot run here is left out, and said to be.

    Args:
        recipe: What ours is.
        rounds: Of every federation.
        only: Patterns such as `ours*`; () for all.
        columns: Names of the columns of a row.
        devices: How many there are.
        ablations: Also ours with one part changed at a time.

    Raises:
        ConfigError: no name matches, or only those of methods that cannot run here.
    """
    from fl_core.contender_baselines import baselines
    from fl_core.contender_encoders import encoders
    from fl_core.layouts import blocks_for, is_misread

    bank = _bank(columns) if ablations else None
    blocks = blocks_for(columns)
    recipe = replace(recipe, config=replace(recipe.config, blocks=blocks))
    layout = not is_misread(columns)
    trained = encoders(rounds=rounds, ablations=ablations, bank=bank, recipe=recipe, layout=layout)
    protected = [_protected(scheme, recipe, rounds) for scheme in _TITLES]
    known = [*baselines(recipe.window - 1), *trained, *protected]
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
    why = _obstacles(devices)
    able = [each for each in chosen if each.name not in why]
    if not able:
        name = chosen[0].name
        raise ConfigError(f"{name}: {why[name]}", hint=why[name].hint)
    for each in chosen:
        if each.name in why:
            click.echo(f"left out: {each.name}: {why[each.name]}", err=True)
    return able


def _bank(columns: Sequence[str]) -> PublicBank | None:
    """Return the built-in public rows, where they have these columns."""
    from fl_core.errors import ModelError
    from fl_core.public_bank import PublicBank

    try:
        return PublicBank.builtin(columns)
    except ModelError:
        return None


def _obstacles(devices: int) -> dict[str, ConfigError]:
    """Return why methods cannot run here, by their names."""
    found = {}
    for scheme, title in _TITLES.items():
        try:
            SCHEMES[scheme].check()
        except ConfigError as error:
            found[title] = error
    if devices < MIN_NODES:
        few = ConfigError(
            f"the protocol takes {MIN_NODES} devices or more, there are {devices}",
            hint="give data of more devices, or choose other methods by --only",
        )
        found = dict.fromkeys(_TITLES.values(), few)
    return found


def _protected(scheme: str, recipe: Recipe, rounds: int) -> Contender:
    """Return our training through the whole protocol, by one scheme."""
    import numpy as np
    from numpy.typing import NDArray

    from fl_core.config import ModelConfig
    from fl_core.contender_encoders import encoder_contender
    from fl_core.contenders import Rows
    from nodes.rehearsal import simulate_training

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

    title, gap = _TITLES[scheme], recipe.window - 1
    found = encoder_contender(title, recipe.model, train, gap=gap)
    return replace(found, least=MIN_NODES)
