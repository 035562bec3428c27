"""The script `sweeps`, and `python -m crack_sweeps`."""

from __future__ import annotations


def main() -> None:
    """Run the command line and end the process with its exit code."""
    import os
    import sys

    # The search for pydantic plugins reads the metadata of every installed package: 12 ms, and none is used here.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    try:
        from crack_sweeps.cli.app import run_command_line

        code = run_command_line()
    except KeyboardInterrupt:  # before a command has its own way to stop, nothing has begun
        sys.stderr.write("interrupted\n")
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
