"""What a study's photos are, kept beside it: their digest, their warnings, and which test photos training has seen."""

from __future__ import annotations

import json

from crack_sweeps import durable
from crack_sweeps.data.photos import SPLITS, PhotoSet
from crack_sweeps.study.folder import StudyFolder


def write_data_facts(folder: StudyFolder, photos: PhotoSet) -> None:
    """Write `data.json`; the leaderboard warns by it.

    A test photo is leaked if it was cut from a photograph that training or validation has too.
    """
    trained_on = {photo.group for split in SPLITS[:2] for photo in photos.split(split)}
    leaked = [photo for photo in photos.split("test") if photo.group in trained_on]
    facts = {
        "name": photos.name,
        "digest": photos.digest,
        **{f"num_{split}": len(photos.split(split)) for split in SPLITS},
        "warnings": list(photos.warnings),
        "leaked_test": [photo.name for photo in leaked],
        "leaked_groups": sorted({photo.group for photo in leaked}),
    }
    durable.write_text(folder.path / "data.json", json.dumps(facts, indent=1) + "\n")
