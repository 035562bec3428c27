"""Send one run while the sender is killed (SIGKILL) before and after every call that changes something.

Prints the number of deaths. A process of its own, since it forks after MLflow was imported.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

CHANGING = (
    "create_experiment create_run log_batch log_inputs log_outputs log_artifact log_artifacts log_text update_run "
    "set_terminated set_tag create_logged_model log_model_artifacts finalize_logged_model"
).split()

LONGEST_LIFE = 11  # moments: two for each change
MOST_DEATHS = 200  # without progress it would go on for ever


def send_and_die(run_dir: Path, death: int) -> None:
    """Send; die at the `death`-th of: before the first change, after it, before the second ..."""
    from mlflow import MlflowClient

    from crack_sweeps.tracking import mirror, sender

    moments = 0

    def mortal(function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal moments
            for step in ("before", "after"):
                if moments == death:
                    os.kill(os.getpid(), signal.SIGKILL)
                moments += 1
                if step == "before":
                    result = function(*args, **kwargs)
            return result

        return wrapped

    for name in CHANGING:
        setattr(MlflowClient, name, mortal(getattr(MlflowClient, name)))
    sender.write_state = mortal(sender.write_state)
    mirror.send(run_dir)


def main() -> None:
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  (imported once, for all children)
    import tensorboard.summary.writer.event_file_writer  # noqa: F401

    deaths = 0
    while True:
        child = os.fork()
        if child == 0:
            # Longer and longer lives: the longest must reach past all the changes of one commit.
            send_and_die(Path(sys.argv[1]), death=deaths % LONGEST_LIFE)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status) and deaths < MOST_DEATHS:
            deaths += 1
            continue
        print(deaths)
        sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    from crack_sweeps.tracking.quiet import quiet_mlflow

    quiet_mlflow()
    main()
