"""Send a run, or a study with its runs, while the sender is killed (SIGKILL) once after every change.

Prints the number of deaths. A process of its own, since it forks after MLflow was imported.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

CHANGING = [
    *("create_experiment", "create_run", "update_run", "set_terminated", "set_tag", "log_batch", "log_inputs"),
    *("log_outputs", "log_artifact", "log_artifacts", "log_text"),
    *("create_logged_model", "log_model_artifacts", "finalize_logged_model"),
]


def position() -> str:
    """How far each run has come."""
    found = [*Path("studies").glob("*/tracking.json"), *Path("artifacts/outputs").glob("*/tracking.json")]
    return ",".join(str(json.loads(path.read_bytes())["next_seq"]) for path in sorted(found))


def send_and_die(run_dir: Path, died_at: Path) -> None:
    """Send; die after the first change after which no earlier life died."""
    from mlflow import MlflowClient

    from crack_sweeps.tracking import mirror, sender
    from crack_sweeps.tracking.state import Trainer
    from crack_sweeps.tracking.study_mirror import follow_study

    old_deaths = died_at.read_text().splitlines() if died_at.exists() else []
    calls: list[str] = []

    def mortal(name: str, function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            call = f"{name} at {position()}"
            calls.append(call)
            moment = f"{call}, {calls.count(call)}"
            if moment not in old_deaths:
                died_at.write_text("\n".join([*old_deaths, moment]))
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    for name in CHANGING:
        setattr(MlflowClient, name, mortal(name, getattr(MlflowClient, name)))
    sender.write_state = mortal("write_state", sender.write_state)
    if run_dir.parent.name == "studies":
        follow_study(run_dir, Trainer.this_process(), poll_s=0.01)
    else:
        mirror.send(run_dir)


def main() -> None:
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  (imported once, for all children)
    import tensorboard.summary.writer.event_file_writer  # noqa: F401

    run_dir, died_at = Path(sys.argv[1]), Path("died_at.txt")
    while True:
        child = os.fork()
        if child == 0:
            send_and_die(run_dir, died_at)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            break
    print(len(died_at.read_text().splitlines()))
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    from crack_sweeps.tracking.quiet import quiet_mlflow

    quiet_mlflow()
    main()
