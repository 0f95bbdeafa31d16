"""The command line. A command imports what it needs when it runs: `--help` is quick."""

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

__all__ = ["cli", "main"]


class _Kind(click.Group):
    """Errors in one line, as they are meant for people; the traceback on request."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            said = " ".join(str(error).split()) or type(error).__name__
            if not isinstance(error, (ValueError, OSError, MemoryError, ImportError, RuntimeError)):
                # Our mistake rather than the user's: its kind is half of what it says.
                said = f"{type(error).__name__}: {said} (kloaders --debug ... shows where)"
            click.echo(f"kloaders: {visible(said)}", err=True)
            ctx.exit(1)


@click.group(
    cls=_Kind,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`kloaders COMMAND --help` tells more about a command.",
)
@click.version_option(__version__, prog_name="kloaders")
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
def cli(debug: bool) -> None:
    """Data loaders for Keras: more data than RAM, and a model that does not wait.

    \b
    See it train, on images that come with scikit-learn:
        kloaders demo

    \b
    Look at your own data, and at where the time goes:
        kloaders show photos/ --size 224 224
        kloaders explain photos/ --size 224 224

    \b
    In Python:
        import kloaders as kl
        train, val = kl.from_directory("photos", size=(224, 224), seed=7)
        model.fit(train, validation_data=val, epochs=10)
    """  # noqa: D301 (\b is the character that click looks for)
    show_messages()


for _command in (
    demo_command,
    show_command,
    explain_command,
    bench_command,
    verify_command,
    pack_command,
    tfrecord_command,
    cache_command,
):
    cli.add_command(_command)


def main() -> None:
    """The entry point of the command `kloaders`."""
    cli(prog_name="kloaders")
