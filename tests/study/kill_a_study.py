"""Search the toy study while its coordinator and its trials are killed (SIGKILL) again and again; prints the deaths.

A process of its own, which forks each coordinator after the imports, and one warm server of trials for all of them:
kill_a_study.py STUDY PHOTOS SEED WHO KILLS MIRROR JOBS  with WHO one of nobody, coordinator, trials, both.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

MORTALITY = Path("mortality")  # chance of a trial to die at each of its moments; no file: it does not die
DEATHS = Path("deaths")  # a byte for each trial that died
LIVES = 2000


def fatal(function: Any, may_die: Any) -> Any:
    """The function, after (or before) which the process may die."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        may_die()
        result = function(*args, **kwargs)
        may_die()
        return result

    return wrapped


def arm_trials() -> None:
    """Imported by the warm server: each trial may die at a step, a file staged, a name replaced, an event, a word."""
    from crack_sweeps import durable
    from crack_sweeps.runs.events import EventLog
    from crack_sweeps.study import trial
    from crack_sweeps.training import loop

    chance = random.Random()

    def may_die() -> None:
        try:
            mortality = float(MORTALITY.read_text())
        except (FileNotFoundError, ValueError):
            return
        chance.seed(os.urandom(8))
        if chance.random() < mortality:
            with DEATHS.open("ab") as file:
                file.write(b"x")
            os.kill(os.getpid(), signal.SIGKILL)

    loop._take_step = fatal(loop._take_step, may_die)
    durable.stage = fatal(durable.stage, may_die)
    os.replace = fatal(os.replace, may_die)
    EventLog.append = fatal(EventLog.append, may_die)  # type: ignore[method-assign]
    trial._Link.say = fatal(trial._Link.say, may_die)  # type: ignore[method-assign]


def mortal_coordinator(lifetime: int) -> None:
    """Die at the lifetime-th of these moments: before and after each write and each word to a trial."""
    from crack_sweeps.runs.events import EventLog
    from crack_sweeps.study.local import LocalExecutor
    from crack_sweeps.study.store import Store

    left = lifetime

    def may_die() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    EventLog.append = fatal(EventLog.append, may_die)  # type: ignore[method-assign]
    for name in ("add", "report", "note", "finish"):
        setattr(Store, name, fatal(getattr(Store, name), may_die))
    for name in ("launch", "answer"):
        setattr(LocalExecutor, name, fatal(getattr(LocalExecutor, name), may_die))
    # Between two writes of one trial's end, too: facts, then state.
    from optuna.storages import RDBStorage

    RDBStorage.set_trial_user_attr = fatal(RDBStorage.set_trial_user_attr, may_die)  # type: ignore[method-assign]


def live(study: str, photos: Path, lifetime: int | None, *, mirror: bool, jobs: int) -> None:
    """One life of a coordinator, over the warm server that is there already."""
    from crack_sweeps import search
    from crack_sweeps.study import coordinator, floor_scores

    server = forkserver._forkserver  # type: ignore[attr-defined]
    server.ensure_running = lambda: None  # it is the parent's child, so this process cannot ask after it
    forkserver.ensure_running = server.ensure_running
    coordinator.MAX_DEATHS = floor_scores.MAX_DEATHS = LIVES  # here the killer is to blame, not what it kills
    if not mirror:
        search._mirror = lambda *_: None  # type: ignore[assignment]
    if lifetime is not None:
        mortal_coordinator(lifetime)
    search.run_study(study, data=photos, profile="none", jobs=jobs)


def main() -> None:
    study, photos = sys.argv[1], Path(sys.argv[2])
    seed, who, kills, mirror = int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), bool(int(sys.argv[6]))
    jobs = int(sys.argv[7])
    import crack_sweeps.search  # noqa: F401  # once, before the coordinators are forked
    from crack_sweeps.study import warm

    warm.PRELOADED = "kill_a_study_server"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    warm.processes()
    rng = random.Random(seed)
    deaths = 0
    for _ in range(LIVES):
        trial_deaths = DEATHS.stat().st_size if DEATHS.exists() else 0
        done = deaths + trial_deaths >= kills
        if who in ("trials", "both") and not done:
            MORTALITY.write_text("0.01")
        else:
            MORTALITY.unlink(missing_ok=True)
        lifetime = rng.randint(1, 60) if who in ("coordinator", "both") and not done else None
        child = os.fork()
        if child == 0:
            live(study, photos, lifetime, mirror=mirror, jobs=jobs)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL, os.WTERMSIG(status)
            deaths += 1
            continue
        assert os.waitstatus_to_exitcode(status) == 0, "a life ended with an error of its own"
        trial_deaths = DEATHS.stat().st_size if DEATHS.exists() else 0
        print(deaths, trial_deaths)
        return
    raise SystemExit("it never got to the end")


if __name__ == "__main__":
    main()
