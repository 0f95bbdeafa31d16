"""Writes docs/command-line.md from the commands themselves: python docs/make_command_page.py."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import click

from kloaders.cli.main import GROUPS, cli

PAGE = Path(__file__).parent / "command-line.md"

# The same as the command has.
_HELP = cli.context_settings["help_option_names"]

BEGIN = """\
<!-- Written by `python docs/make_command_page.py`. Edit the commands in kloaders/cli, not this page. -->

# Command line

`kloaders` is installed with the package; `python -m kloaders` is the same command. Every command has `--help`, an exit code for
scripts (0: done), and errors in one line; `kloaders --debug COMMAND ...` shows the whole traceback. Ctrl-C stops a command,
prints what was done by then, and exits with code 130.

| command | what it does |
| --- | --- |
"""


def page() -> str:
    """The text of the page."""
    commands = [command for group in GROUPS.values() for command in group]
    rows = [f"| [{c.name}](#{_anchor(c)}) | {c.get_short_help_str(200)} |" for c in commands]
    parts = [BEGIN + "\n".join(rows)]
    for heading, group in GROUPS.items():
        parts.append(f"## {heading}")
        parts += [_section(command) for command in group]
    parts.append(_exit_options())
    return "\n\n".join(parts) + "\n"


def _anchor(command: click.Command) -> str:
    return f"kloaders-{command.name}"


def _section(command: click.Command) -> str:
    """Usage, help and options of one command."""
    context = click.Context(command, info_name=f"kloaders {command.name}", help_option_names=_HELP)
    usage = " ".join(command.collect_usage_pieces(context))
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    found = [f"### kloaders {command.name}", *map(_paragraph, paragraphs)]
    found.insert(2, f"```text\nkloaders {command.name} {usage}\n```")
    rows = []
    for option in command.get_params(context):
        record = option.get_help_record(context)
        if isinstance(option, click.Option) and record is not None:
            rows.append("| `{}` | {} |".format(*(_cell(text) for text in record)))
    return "\n\n".join([*found, "| option | what it does |\n| --- | --- |\n" + "\n".join(rows)])


def _paragraph(text: str) -> str:
    """Convert a help text to Markdown; paragraphs that click does not rewrap become code blocks."""
    if not text.startswith("\b\n"):
        return text
    head, _, rest = text.removeprefix("\b\n").partition("\n")
    if head != "Examples:":
        return f"```text\n{head}\n{rest}".rstrip("\n") + "\n```"
    lines = [line for line in rest.split("\n") if line.startswith(" ")]
    after = [line for line in rest.split("\n") if line and not line.startswith(" ")]
    block = "```sh\n" + inspect.cleandoc("\n".join(lines)) + "\n```"
    return "\n\n".join([block, *after])


def _cell(text: str) -> str:
    """Within a table: no bars, and what is a range or a default as people read it."""
    text = re.sub(r"; x>=(\d+)", r"; at least \1", text.replace("|", "\\|"))
    text = re.sub(r"; [\d.]+<=?x<=?[\d.]+|\s+\[(x>=|[\d.]+<=?x)[^\]]*\]", "", text)
    return re.sub(
        r"\s{2,}\[", " [", text.replace("INTEGER RANGE", "INTEGER").replace("FLOAT RANGE", "FLOAT")
    )


def _exit_options() -> str:
    context = click.Context(cli, info_name="kloaders", help_option_names=_HELP)
    records = [option.get_help_record(context) for option in cli.get_params(context)]
    rows = ["| `{}` | {} |".format(*record) for record in records if record is not None]
    return (
        "## Options of kloaders itself\n\n| option | what it does |\n| --- | --- |\n"
        + "\n".join(rows)
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
