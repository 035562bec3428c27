"""A real MLflow server on loopback that fails now and then: before a request, or after it, with the answer lost.

Prints its port. A file named `down` in the working directory makes every request fail.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from crack_sweeps.tracking.quiet import quiet_mlflow

quiet_mlflow()
database, share = sys.argv[1], float(sys.argv[2])
os.environ["_MLFLOW_SERVER_FILE_STORE"] = database
os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = str(Path("served").absolute())

from mlflow.server import app  # noqa: E402  (reads the environment above)
from werkzeug.serving import make_server  # noqa: E402

chance = random.Random(0)
application = app.wsgi_app


def flaky(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    lost_before, lost_after = chance.random() < share, chance.random() < share
    if Path("down").exists() or lost_before:
        start_response("503 Service Unavailable", [])
        return [b""]
    if lost_after:
        list(application(environ, lambda *_: lambda _: None))
        start_response("502 Bad Gateway", [])
        return [b""]
    return application(environ, start_response)


app.wsgi_app = flaky
server = make_server("127.0.0.1", 0, app)
print(server.server_port, flush=True)
server.serve_forever()
