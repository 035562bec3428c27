"""A study's folder: its files, its version, its lock, and how to find it again."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from crack_sweeps import durable
from crack_sweeps.errors import StudyNotFound, UserError
from crack_sweeps.specs.study_loading import Identity, ResolvedStudy, dump_study_snapshot, load_study_snapshot
from crack_sweeps.specs.words import nearest
from crack_sweeps.tracking.state import Trainer

STUDIES = Path("studies")
FORMAT = 1


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
    """The study of that name, its newest version where none is typed; the newest of all for None.

    Raises:
        StudyNotFound: There is none.
    """
    found = all_studies(root=root)
    if wanted is None:
        if not found:
            raise StudyNotFound(f"there is no study under {root} yet", hint="begin one with `sweeps study`")
        return found[0]
    wanted = wanted.rstrip("/").removeprefix(f"{root}/")
    exact = [folder for folder in found if folder.name == wanted] if "@" in wanted else []
    versions = exact or [folder for folder in found if folder.plain_name == wanted]
    if versions:
        return max(versions, key=lambda folder: folder.version)
    names = [folder.name for folder in found]
    close = nearest(wanted, names)
    hint = f"did you mean {close}?" if close else f"there are {', '.join(names[:8])}" if names else "there is none yet"
    raise StudyNotFound(f"no study is named `{wanted}`", hint=hint)


@dataclass(frozen=True)
class Opened:
    """A study's folder, ready for a coordinator.

    Args:
        is_new: Nothing of it has been searched yet.
        imports_from: The version before, where only the space is another: its trials that still fit come along.
    """

    folder: StudyFolder
    is_new: bool
    imports_from: StudyFolder | None


def open_folder(
    study: ResolvedStudy, identity: Identity, decided: Mapping[str, Any], *, root: Path = STUDIES
) -> Opened:
    """The folder of the study with this identity, or a new one under the next version.

    Args:
        study: What is searched.
        identity: What tells it apart; budgets and jobs are not in it.
        decided: Kept for the study's whole life if it is new, such as the memory budget in bytes.
    """
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        versions = sorted(
            (folder for folder in all_studies(root=root) if folder.plain_name == study.spec.name),
            key=lambda folder: folder.version,
        )
        for folder in reversed(versions):
            facts = folder.read_facts()
            if (facts["space"], facts["rest"]) == (identity.space, identity.rest):
                return Opened(folder, is_new=False, imports_from=_imported(facts, root))
        before = [folder for folder in versions if folder.read_facts()["rest"] == identity.rest]
        version = versions[-1].version + 1 if versions else 1
        folder = StudyFolder(root / (study.spec.name if version == 1 else f"{study.spec.name}@{version}"))
        folder.path.mkdir(exist_ok=True)  # one without identity.json is what a crash left of this very step
        durable.write_text(folder.snapshot, dump_study_snapshot(study))
        facts = {
            "format": FORMAT,
            "space": identity.space,
            "rest": identity.rest,
            "imports_from": before[-1].name if before else None,
            "began": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **decided,
        }
        durable.write_text(folder.facts_file, json.dumps(facts, indent=1) + "\n")
        return Opened(folder, is_new=True, imports_from=before[-1] if before else None)


def _imported(facts: Mapping[str, Any], root: Path) -> StudyFolder | None:
    return StudyFolder(root / facts["imports_from"]) if facts["imports_from"] else None


def _last_touched(folder: StudyFolder) -> float:
    return max(path.stat().st_mtime for path in (folder.facts_file, folder.events, folder.ledger) if path.exists())
