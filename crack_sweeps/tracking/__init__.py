"""The mirror of a run into MLflow and TensorBoard."""
