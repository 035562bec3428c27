"""Checkpoints that a crash, a full disk or a flipped bit cannot turn into wrong weights."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from crack_sweeps import durable
from crack_sweeps.errors import CheckpointError

FORMAT = 1
BEST = "best_model.pth"
LATEST = "latest_model.pth"
PREVIOUS = "previous_model.pth"
_MANIFEST = "manifest.json"
_MANY = 16  # digests from which on those of files that are gone are dropped: hashing the others costs seconds


def sha256(path: Path) -> str:
    """Digest of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class CheckpointFolder:
    """The folder `checkpoints/` of one run.

    A file counts only if its SHA-256 stands in `manifest.json`. The manifest is written before a new file takes its
    name, and no digest of a file on disk is ever dropped: however often a process is killed in between, each named
    file is known.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def best(self) -> Path:
        """The weights with the best validation score."""
        return self.folder / BEST

    @property
    def latest(self) -> Path:
        """The newest whole state of training, or the final weights of a run that has ended."""
        return self.folder / LATEST

    def save_latest(self, state: dict[str, Any]) -> None:
        """Store the whole state; the one before it stays as the file to fall back to."""
        staged = self._stage(self.latest, state)
        if self.latest.exists():
            os.replace(self.latest, self.folder / PREVIOUS)
        os.replace(staged, self.latest)
        durable.sync_folder(self.folder)

    def save_best(self, state: dict[str, Any]) -> None:
        """Store the best weights."""
        os.replace(self._stage(self.best, state), self.best)
        durable.sync_folder(self.folder)

    def finish(self, weights: dict[str, Any]) -> None:
        """The training has ended: keep the final weights alone; optimizer and averaged weights go."""
        os.replace(self._stage(self.latest, weights), self.latest)
        (self.folder / PREVIOUS).unlink(missing_ok=True)
        durable.sync_folder(self.folder)

    def load_latest(self) -> tuple[dict[str, Any], list[str]] | None:
        """The newest state that is whole, and a line for each file that was passed over; None if nothing was saved.

        Raises:
            CheckpointError: Files are there, but none of them is whole.
        """
        found = [path for path in (self.latest, self.folder / PREVIOUS) if path.exists()]
        complaints: list[str] = []
        for path in found:
            try:
                return load(path, known=self._digests()), complaints
            except CheckpointError as error:
                complaints.append(error.message)
        if found:
            raise CheckpointError(complaints[0], hint="no older checkpoint is whole either; start the run anew")
        return None

    def load_best(self) -> dict[str, Any]:
        """The best weights.

        Raises:
            CheckpointError: The file is missing or damaged.
        """
        return load(self.best, known=self._digests())

    def clear_unfinished(self) -> None:
        """Remove what a killed process left half written. Only the process that holds the run's lock may call this."""
        for part in self.folder.glob(".*.part"):
            part.unlink(missing_ok=True)

    def _digests(self) -> list[str]:
        return [entry["sha256"] for entry in self._entries()]

    def _entries(self) -> list[dict[str, Any]]:
        path = self.folder / _MANIFEST
        if not path.exists():
            return []
        try:
            content = json.loads(path.read_bytes())
            if content["format"] != FORMAT:
                hint = "use the version that wrote it"
                raise CheckpointError(f"{path}: format {content['format']}, this version reads {FORMAT}", hint=hint)
            return [
                {"name": str(e["name"]), "sha256": str(e["sha256"]), "size_bytes": int(e["size_bytes"])}
                for e in content["files"]
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: damaged ({error})", hint="start the run anew") from error

    def _stage(self, path: Path, state: dict[str, Any]) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)

        def write(file: BinaryIO) -> None:
            torch.save({"format": FORMAT, **state}, file)

        staged = durable.stage(path, write)
        entry = {"name": path.name, "sha256": sha256(staged), "size_bytes": staged.stat().st_size}
        files = [entry, *self._entries_to_keep()]
        durable.write_text(self.folder / _MANIFEST, json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n")
        return staged

    def _entries_to_keep(self) -> list[dict[str, Any]]:
        """All entries, the newest first; once there are many, those of files on disk and the newest of each name."""
        entries = self._entries()
        if len(entries) < _MANY:
            return entries
        on_disk = {sha256(path) for path in (self.best, self.latest, self.folder / PREVIOUS) if path.exists()}
        newest = {entry["name"]: entry["sha256"] for entry in reversed(entries)}  # of a file that a copy may put back
        return [entry for entry in entries if entry["sha256"] in on_disk | {newest[entry["name"]]}]


def load(path: Path, *, known: list[str] | None = None) -> dict[str, Any]:
    """Read one checkpoint onto the CPU. Nothing in the file is executed.

    Args:
        path: A file that this module wrote.
        known: Digests to trust; None skips the comparison (a file from elsewhere).

    Raises:
        CheckpointError: Missing, damaged, of another format, or holding more than tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint", hint="name a run that has one")
    if known is not None and sha256(path) not in known:
        raise CheckpointError(f"{path}: damaged (its SHA-256 is not the one that was stored)")
    if not zipfile.is_zipfile(path):  # older pickle formats, which torch would read too, were never written here
        raise CheckpointError(f"{path}: cannot be read as a checkpoint (not a zip archive of torch.save)")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({first_line[:120]})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path}: format {found}, this version reads {FORMAT}")
    return state
