"""The command line. A command imports what it needs when it runs: `--help` is quick."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import click

from kloaders import __version__

__all__ = ["main"]


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
            click.echo(f"kloaders: {said}", err=True)
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
    See it train, on pictures that come with scikit-learn:
        kloaders demo

    \b
    In Python:
        import kloaders as kl
        train, val = kl.from_directory("photos", size=(224, 224), seed=7)
        model.fit(train, validation_data=val, epochs=10)
    """  # noqa: D301 (\b is the character that click looks for)


@cli.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    default=".",
    show_default="this folder",
    help="Folder for the picture, kloaders-demo.png.",
)
@click.option("--epochs", type=click.IntRange(1), default=8, show_default=True)
@click.option(
    "--way",
    "ways",
    multiple=True,
    type=click.Choice(["preload", "files", "two-level", "tf.data"]),
    help="Only this way; may be given several times.  [default: all four]",
)
@click.option(
    "--crops",
    type=click.IntRange(20),
    default=300,
    show_default=True,
    help="Pieces cut from each photograph; more files, longer epochs.",
)
@click.option(
    "--accuracy",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    help="What each way must reach on files held out; else the exit code is 1.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def demo(
    out: str, epochs: int, ways: tuple[str, ...], crops: int, accuracy: float, as_json: bool
) -> None:
    """Train one small model through four loaders, and show what each costs.

    Writes scikit-learn's digits as PNG files and pieces of its two photographs as JPEG files to a
    temporary folder, trains the same model on them in four ways, and prints samples a second,
    seconds to the first batch, memory, and the share of the time that the model waited. Takes
    about a minute and a half. KERAS_BACKEND chooses the backend.

    \b
    Examples:
        kloaders demo
        kloaders demo --out charts/ --epochs 20
        kloaders demo --way files --way two-level --json > costs.json
    """  # noqa: D301
    from kloaders import demo as show

    begin = time.perf_counter()
    os.makedirs(out, exist_ok=True)
    chosen = [way for way in show.WAYS if not ways or way in ways]
    results = show.compare(chosen, epochs, crops)
    file: str | None = os.path.join(out, "kloaders-demo.png")
    try:
        show.plot(results, str(file))
    except ImportError:
        file = None
    poor = [result for result in results if show.failed(result, accuracy)]
    if as_json:
        report = {
            "version": __version__,
            "seconds": time.perf_counter() - begin,
            "epochs": epochs,
            "accuracy_wanted": accuracy,
            "plot": file,
            "ways": show.summary(results),
        }
        print(json.dumps(report, indent=2))
    else:
        backend = next((r.backend for r in results if r.backend), "no backend")
        print(f"\nOn {os.cpu_count()} cores, Keras on {backend}, {epochs} epochs:\n")
        print(show.table(results))
        print()
        if file is None:
            print("No picture: matplotlib is not installed (python -m pip install matplotlib).")
        else:
            print(f"The same as a picture: {file}")
    for result in poor:
        click.echo(
            f"kloaders: {result.way} reached an accuracy of {result.accuracy:.3f}, expected at "
            f"least {accuracy:g}: try more --epochs.",
            err=True,
        )
    if poor:
        sys.exit(1)


def main() -> None:
    """The entry point of the command `kloaders`."""
    cli(prog_name="kloaders")
