"""Small models and short training for tests."""

from __future__ import annotations

from fl_core.config import ModelConfig, TrainConfig


def small_settings(n_features: int) -> tuple[ModelConfig, TrainConfig]:
    model = ModelConfig(input_dim=n_features, hidden=(16,), embedding_dim=8)
    return model, TrainConfig(steps=4, batch_size=32)
