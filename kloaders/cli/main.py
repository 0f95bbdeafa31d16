"""The entry point of the command line. A command imports its modules when it runs: `--help` is fast."""

from __future__ import annotations

from typing import Any

import click

from kloaders.cli.cache import cache_command
from kloaders.cli.check import verify_command
from kloaders.cli.compare import bench_command, demo_command
from kloaders.cli.convert import pack_command, tfrecord_command
from kloaders.cli.see import explain_command, show_command
from kloaders.core.messages import show_messages, visible
from kloaders.core.version import __version__

__all__ = ["GROUPS", "cli", "main"]


# The commands by purpose, as `kloaders --help` lists them.
GROUPS = {
    "Try it": (demo_command,),
    "Look at data": (show_command, verify_command),
    "Make training faster": (explain_command, bench_command),
    "Convert and keep data": (pack_command, tfrecord_command, cache_command),
}
# Printed after Ctrl-C: what is done, and what to do next.
_AFTER_AN_INTERRUPT = {
    "pack": " The same command continues where it stopped.",
    "tfrecord": " The same command continues where it stopped.",
    "verify": " The findings so far are above.",
    "bench": " The results so far are above.",
    "demo": " The results so far are above.",
    "explain": " The measurement was not completed; --seconds 1 takes less time.",
    "show": " No file was written.",
}


class _Kind(click.Group):
    """The group of all commands. Errors are one line; `--debug` shows the traceback."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands under headings."""
        width = max(map(len, self.commands))
        known = {command.name for group in GROUPS.values() for command in group}
        others = [command for name, command in self.commands.items() if name not in known]
        for heading, group in {**GROUPS, "Others": tuple(others)}.items():
            rows = [
                (str(c.name).ljust(width), c.get_short_help_str(formatter.width - width - 6))
                for c in group
            ]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            from kloaders.core.progress import so_far

            done = so_far()
            after = _AFTER_AN_INTERRUPT.get(ctx.invoked_subcommand or "", "")
            click.echo(f"\nkloaders: stopped{f' after {done}' if done else ''}.{after}", err=True)
            ctx.exit(130)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            said = " ".join(str(error).split()) or type(error).__name__
            if not isinstance(error, (ValueError, OSError, MemoryError, ImportError, RuntimeError)):
                # Probably a bug of ours and not a user error, so its type is shown.
                said = f"{type(error).__name__}: {said} (kloaders --debug ... shows where)"
            click.echo(f"kloaders: {visible(said)}", err=True)
            ctx.exit(1)


@click.group(
    cls=_Kind,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`kloaders COMMAND --help` describes a command.",
)
@click.version_option(__version__, prog_name="kloaders")
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
def cli(debug: bool) -> None:
    """Data loaders for Keras, for data larger than RAM and models that should not wait for it.

    \b
    Train on images that come with scikit-learn:
        kloaders demo

    \b
    Look at your own data, and find the bottleneck:
        kloaders show photos/ --size 224
        kloaders explain photos/ --size 224

    \b
    In Python:
        import kloaders as kl
        train, val = kl.from_directory("photos", size=(224, 224), seed=7)
        model.fit(train, validation_data=val, epochs=10)
    """  # noqa: D301 (\b is the character that click looks for)
    show_messages()


for _group in GROUPS.values():
    for _command in _group:
        cli.add_command(_command)


def main() -> None:
    """The entry point of the command `kloaders`."""
    cli(prog_name="kloaders")
