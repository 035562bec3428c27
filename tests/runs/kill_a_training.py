"""Train one tiny run while the training is killed (SIGKILL) again and again; prints deaths and the run's directory.

A process of its own, which forks each life after the imports: kill_a_training.py PHOTOS SEED WORKERS MIRROR LONGEST
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from conftest import TINY  # beside this file

LIVES = 200


def mortal(lifetime: int) -> None:
    """Die at the lifetime-th of these: a step, a file staged, a name replaced, a log opened, an event appended."""
    from crack_sweeps import durable
    from crack_sweeps.runs.events import EventLog
    from crack_sweeps.training import loop

    left = lifetime

    def fatal(function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            result = function(*args, **kwargs)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    loop._take_step = fatal(loop._take_step)
    durable.stage = fatal(durable.stage)
    os.replace = fatal(os.replace)
    EventLog.__init__ = fatal(EventLog.__init__)  # type: ignore[method-assign]
    EventLog.append = fatal(EventLog.append)  # type: ignore[method-assign]


def live(photos: Path, workers: int, *, mirror: bool, lifetime: int | None) -> None:
    """One life: resume what is there, or start."""
    from crack_sweeps import api

    if not mirror:
        api._mirror = lambda *_: None
    if lifetime is not None:
        mortal(lifetime)
    overrides = [key for key in TINY if not key.startswith("data.num_workers")] + [f"data.num_workers={workers}"]
    api.run("unet_small", overrides=overrides, data=photos, profile="none", resume=lifetime is not None)


def warm_up() -> None:
    """Import once what each life would import: torch's fake tensors and matplotlib among them."""
    import matplotlib.backends.backend_agg  # noqa: F401

    from crack_sweeps import api
    from crack_sweeps.specs.loading import resolve
    from crack_sweeps.training.forecast import forecast

    assert api.MIRROR_PATIENCE_S > 0
    forecast(resolve("unet_small", overrides=TINY, profile="none").experiment)


def main() -> None:
    warm_up()
    photos = Path(sys.argv[1])
    seed, workers, mirror, longest = map(int, sys.argv[2:6])
    rng = random.Random(seed)
    deaths = 0
    for _ in range(LIVES):
        lifetime = rng.randint(1, longest) if longest else None
        child = os.fork()
        if child == 0:
            live(photos, workers, mirror=bool(mirror), lifetime=lifetime)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            deaths += 1
            continue
        assert os.waitstatus_to_exitcode(status) == 0, "a life ended with an error of its own"
        print(deaths, *sorted(path.name for path in Path("artifacts/outputs").iterdir()))
        return
    raise SystemExit("it never got to the end")


if __name__ == "__main__":
    main()
