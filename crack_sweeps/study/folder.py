"""A study's folder: its files, its version, its lock, and how to find it again."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from crack_sweeps import durable
from crack_sweeps.errors import StudyNotFound, UserError
from crack_sweeps.specs.study_loading import (
    Identity,
    ResolvedStudy,
    differences,
    dump_study_snapshot,
    load_study_snapshot,
)
from crack_sweeps.specs.words import nearest
from crack_sweeps.tracking.state import Trainer

STUDIES = Path("studies")
FORMAT = 1
MOST_TOLD = 4  # differences between two studies of a name; the snapshots hold the rest


@dataclass(frozen=True)
class StudyFolder:
    """`studies/NAME/`, and `studies/NAME@2/` for the second study of that name."""

    path: Path

    @property
    def name(self) -> str:
        """The study's name with its version, as people type it."""
        return self.path.name

    @property
    def plain_name(self) -> str:
        """The study's name without its version."""
        return self.path.name.partition("@")[0]

    @property
    def version(self) -> int:
        """From 1."""
        return int(self.path.name.partition("@")[2] or 1)

    @property
    def typed(self) -> str:
        """The name that people reach it by: a bare name is that of the newest version."""
        newer = self.version == 1 and any(
            (path / "identity.json").is_file() for path in self.path.parent.glob(f"{self.plain_name}@*")
        )
        return f"{self.name}@1" if newer else self.name

    def typed_trial(self, stored: str) -> str:
        """The name that people reach a trial by whose name in the study's files is given."""
        return self.typed + stored.removeprefix(self.name)

    @property
    def snapshot(self) -> Path:
        """The study as it was resolved; it needs no other file."""
        return self.path / "study.yaml"

    @property
    def facts_file(self) -> Path:
        """What a study is told apart by, and what was decided once when it began."""
        return self.path / "identity.json"

    @property
    def database(self) -> Path:
        """Optuna's storage, unless another was named."""
        return self.path / "optuna.db"

    @property
    def events(self) -> Path:
        """The append-only log that the study's run in MLflow is fed from."""
        return self.path / "events.jsonl"

    @property
    def ledger(self) -> Path:
        """A row for each trial that ended."""
        return self.path / "ledger.jsonl"

    @property
    def figures(self) -> Path:
        """Folder of pictures."""
        return self.path / "figures"

    @property
    def forecasts(self) -> Path:
        """Forecast memory by shape."""
        return self.path / "forecasts.json"

    @property
    def stop_request(self) -> Path:
        """Its existence asks the coordinator to stop."""
        return self.path / "stop"

    def lock(self) -> FileLock:
        """Held by the study's one coordinator."""
        return FileLock(self.path / ".lock")

    def is_running(self) -> bool:
        """Whether a coordinator is at work."""
        lock = self.lock()
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        lock.release()
        return False

    def read_facts(self) -> dict[str, Any]:
        """Content of identity.json.

        Raises:
            UserError: The file is missing or damaged.
        """
        try:
            facts: dict[str, Any] = json.loads(self.facts_file.read_bytes())
        except (OSError, ValueError) as error:
            raise UserError(f"{self.facts_file}: cannot be read ({error})") from error
        if facts.get("format") != FORMAT:
            raise UserError(f"{self.facts_file}: format {facts.get('format')}, this version reads {FORMAT}")
        return facts

    def add_facts(self, **facts: Any) -> None:
        """More for identity.json; the caller holds the study's lock."""
        durable.write_text(self.facts_file, json.dumps({**self.read_facts(), **facts}, indent=1) + "\n")

    def read_study(self) -> ResolvedStudy:
        """The study as it began."""
        return load_study_snapshot(self.snapshot)

    def write_lease(self) -> None:
        """Say who coordinates."""
        durable.write_text(self.path / "coordinator.json", json.dumps(asdict(Trainer.this_process())) + "\n")

    def read_lease(self) -> Trainer | None:
        """Who coordinates, or did so last."""
        path = self.path / "coordinator.json"
        return Trainer(**json.loads(path.read_bytes())) if path.is_file() else None


def all_studies(*, root: Path = STUDIES) -> list[StudyFolder]:
    """Studies that have begun, the newest first."""
    if not root.is_dir():
        return []
    found = [StudyFolder(path) for path in root.iterdir() if (path / "identity.json").is_file()]
    return sorted(found, key=lambda folder: (_last_touched(folder), folder.name), reverse=True)


def find_study(wanted: str | None, *, root: Path = STUDIES) -> StudyFolder:
    """The study of a typed name: NAME is its newest version, NAME@1 the first; None the newest of all.

    Raises:
        StudyNotFound: There is none.
    """
    found = all_studies(root=root)
    if wanted is None:
        if not found:
            raise StudyNotFound(f"there is no study under {root} yet", hint="begin one with `sweeps study`")
        return found[0]
    wanted = wanted.rstrip("/").removeprefix(f"{root}/")
    plain, at, version = wanted.partition("@")
    versions = [f for f in found if f.plain_name == plain and (not at or str(f.version) == version)]
    if versions:
        return max(versions, key=lambda folder: folder.version)
    names = [folder.typed for folder in found]
    close = nearest(wanted, names)
    hint = f"did you mean {close}?" if close else f"there are {', '.join(names[:8])}" if names else "there is none yet"
    raise StudyNotFound(f"no study is named `{wanted}`", hint=hint)


def stored_study(name: str, *, root: Path = STUDIES) -> StudyFolder:
    """The study that a file names: `toy` is the first version there, whatever came after it.

    Raises:
        StudyNotFound: Its folder is gone.
    """
    folder = StudyFolder(root / name)
    if not folder.facts_file.is_file():
        raise StudyNotFound(f"study {name} is gone: {folder.path} is not there", hint="put its folder back")
    return folder


@dataclass(frozen=True)
class Stored:
    """What there is of a study.

    Args:
        folder: Its folder, or the one that it would get.
        exists: Whether it has begun.
        before: Earlier versions, the oldest first, where only the space is another: their trials that still fit come
            along. Empty once they have.
        gone: Names of those whose folders are no longer there.
        newest: Of a study that has not begun, the newest of its name, which is another one; None without any.
    """

    folder: StudyFolder
    exists: bool
    before: tuple[StudyFolder, ...] = ()
    gone: tuple[str, ...] = ()
    newest: StudyFolder | None = None


def find_stored(name: str, identity: Identity | None, *, root: Path = STUDIES) -> Stored:
    """The folder that `open_folder` would open; nothing is made.

    Args:
        name: The study's, without a version.
        identity: What tells it apart; None before its photos are there, so it cannot have begun.
        root: Folder of all studies.
    """
    versions = sorted((f for f in all_studies(root=root) if f.plain_name == name), key=lambda folder: folder.version)
    facts = {folder: folder.read_facts() for folder in versions}
    for folder in reversed(versions):
        if identity is not None and facts[folder]["space"] == identity.space and _is_alike(facts[folder], identity):
            earlier = [StudyFolder(root / name) for name in _imports(facts[folder])]
            gone = tuple(old.name for old in earlier if old not in facts)
            return Stored(folder, True, tuple(old for old in earlier if old in facts), gone)
    alike = [folder for folder in versions if identity is not None and _is_alike(facts[folder], identity)]
    version = versions[-1].version + 1 if versions else 1
    folder = StudyFolder(root / (name if version == 1 else f"{name}@{version}"))
    return Stored(folder, False, tuple(alike), newest=versions[-1] if versions else None)


def open_folder(
    study: ResolvedStudy, identity: Identity, decided: Mapping[str, Any], *, root: Path = STUDIES
) -> Stored:
    """The folder of the study with this identity, or a new one under the next version.

    Args:
        study: What is searched.
        identity: What tells it apart; budgets and jobs are not in it.
        decided: Kept for the study's whole life if it is new, such as the memory budget in bytes.
        root: Folder of all studies.
    """
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        found = find_stored(study.spec.name, identity, root=root)
        if found.exists:
            return found
        folder = found.folder
        folder.path.mkdir(exist_ok=True)  # one without identity.json is what a crash left of this very step
        durable.write_text(folder.snapshot, dump_study_snapshot(study))
        facts = {
            "format": FORMAT,
            "id": secrets.token_hex(8),
            "space": identity.space,
            "rest": identity.rest,
            "main": identity.main,
            "imports_from": [old.name for old in found.before],
            "imported": not found.before,
            "began": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **decided,
        }
        durable.write_text(folder.facts_file, json.dumps(facts, indent=1) + "\n")
        return found


def why_anew(stored: Stored, study: ResolvedStudy, data_digest: str) -> str | None:
    """What makes a study another one than the newest of its name, and what becomes of that one's trials."""
    if stored.newest is None:
        return None
    told = differences(stored.newest.read_study(), study)
    if (known := stored.newest.read_facts().get("data_digest")) != data_digest:
        told = (f"photos or masks changed (digest {str(known)[:12]}, now {data_digest[:12]})", *told)
    some = "; ".join(told[:MOST_TOLD]) + (f" and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else "")
    trials = "those of its trials that still fit come along" if stored.before else "its trials stay behind"
    return f"this is another study than {stored.newest.typed}: {some or 'its settings differ'}; {trials}"


def _is_alike(facts: Mapping[str, Any], identity: Identity) -> bool:
    """Whether a stored study is this one but for its space, at most; the first ones did not say which arm is main."""
    return bool(facts["rest"] == identity.rest and facts.get("main", identity.main) == identity.main)


def _imports(facts: Mapping[str, Any]) -> list[str]:
    """Versions whose trials are still to come along; a single name, or null, is how that was written at first."""
    named = facts["imports_from"]
    if facts.get("imported"):
        return []
    return named if isinstance(named, list) else [named] if named else []


def _last_touched(folder: StudyFolder) -> float:
    return max(path.stat().st_mtime for path in (folder.facts_file, folder.events, folder.ledger) if path.exists())
