"""Federated contrastive learning for anomaly detection, callable without any network."""
