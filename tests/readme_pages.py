"""The parts of the README that are made from the code; `python tests/readme_pages.py` writes them anew."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
README = REPO / "README.md"
ROOMS_OF_WORK = (
    "specs",
    "data",
    "models",
    "evaluation",
    "training",
    "runs",
    "tracking",
    "study",
    "leaderboard",
    "deploy",
)
LAYERS = ("errors", "durable", "console", "fork_server", *ROOMS_OF_WORK)
ROOMS = (*LAYERS, "doctor", "api", "search", "scoring", "cli")


def commands_page() -> str:
    """Every command with its arguments and flags, as the parser knows them."""
    import typer

    from crack_sweeps.cli.app import app

    lines: list[str] = []

    def walk(command: Any, path: str) -> None:
        inner = getattr(command, "commands", None)
        if inner:
            for name, child in inner.items():
                walk(child, f"{path} {name}")
            return
        words = [path]
        for parameter in command.params:
            if parameter.name == "help":
                continue
            if parameter.param_type_name == "argument":
                shown = (parameter.metavar or parameter.name.upper()).strip("[].")
                words.append(shown if parameter.required else f"[{shown}]")
        flags = [p.opts[0] for p in command.params if p.param_type_name == "option" and p.name != "help"]
        summary = command.help.strip().splitlines()[0]
        lines.append(f"| `{' '.join(words)}` | {summary} | {' '.join(f'`{flag}`' for flag in flags)} |")

    walk(typer.main.get_command(app), "sweeps")
    return "\n".join(["| command | does | flags |", "|---|---|---|", *lines])


def rooms_page() -> str:
    """Each room and the first line of its docstring, from top to bottom."""
    lines = ["| room | job |", "|---|---|"]
    for room in ROOMS:
        path = REPO / "crack_sweeps" / room / "__init__.py"
        name = f"{room}/"
        if not path.is_file():
            path, name = REPO / "crack_sweeps" / f"{room}.py", f"{room}.py"
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring, path
        lines.append(f"| `{name}` | {docstring.splitlines()[0]} |")
    return "\n".join(lines)


def with_pages(text: str) -> str:
    """The README with its generated parts made anew."""
    for name, page in (("commands", commands_page()), ("rooms", rooms_page())):
        block = f"<!-- {name}: made by tests/readme_pages.py -->\n{page}\n<!-- /{name} -->"
        text, found = re.subn(rf"<!-- {name}\b.*?<!-- /{name} -->", lambda _, b=block: b, text, flags=re.DOTALL)
        assert found == 1, f"README has no place for {name}"
    return text


if __name__ == "__main__":
    README.write_text(with_pages(README.read_text(encoding="utf-8")), encoding="utf-8")
