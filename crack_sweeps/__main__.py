"""The script `sweeps`, and `python -m crack_sweeps`."""

from __future__ import annotations


def main() -> None:
    """Run the command line and end the process with its exit code."""
    import os
    import sys

    # The search for pydantic plugins reads the metadata of every installed package: 12 ms, and none is used here.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")

    from crack_sweeps.cli.app import run_command_line

    sys.exit(run_command_line())


if __name__ == "__main__":
    main()
