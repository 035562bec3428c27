"""The JSON schema of an experiment, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

from crack_sweeps.specs.experiment import Experiment


def experiment_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of what may stand in `experiments/*.yaml`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Experiment.model_json_schema()}
