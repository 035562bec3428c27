"""The JSON schemas of experiments and studies, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

from crack_sweeps.specs.experiment import Experiment, Frozen

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def experiment_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of what may stand in `experiments/*.yaml`."""
    return _schema(Experiment)


def study_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of what may stand in `studies/*.yaml`."""
    from crack_sweeps.specs.study import StudySpec

    return _schema(StudySpec)


def _schema(described: type[Frozen]) -> dict[str, Any]:
    return {"$schema": DRAFT, **described.model_json_schema()}
