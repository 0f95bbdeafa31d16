"""Options that several commands have."""

import click
import pytest
from click.testing import CliRunner

import kloaders as kl
from kloaders.cli.options import (
    BadFiles,
    Conversion,
    ImageCommand,
    ImageShape,
    RayOption,
    TableColumns,
    bad_file_options,
    conversion_options,
    image_options,
    ray_option,
    save_option,
    table_options,
)


def called(command, *arguments):
    """The values that a command gets for these arguments."""
    found = {}

    @click.command(cls=ImageCommand)
    @command
    def collect(**values):
        found.update(values)

    done = CliRunner().invoke(collect, list(arguments))
    assert done.exit_code == 0, done.output
    return found


def test_columns_of_tables(tmp_path):
    """One value; an empty name is no labels."""
    assert called(table_options) == {"table": TableColumns()}
    arguments = ("--path-column", "a", "--label-column", "", "--folder", str(tmp_path))
    assert called(table_options, *arguments) == {"table": TableColumns("a", None, str(tmp_path))}


def test_shapes_of_images():
    assert called(image_options("as they are")) == {"images": ImageShape(None, 3)}
    got = called(image_options("as they are"), "--size", "4", "5", "--channels", "1")
    assert got == {"images": ImageShape((4, 5), 1)}


@pytest.mark.parametrize("size", [["64"], ["64x64"], ["64", "64"]])
def test_a_size_is_written_as_people_do(size):
    """One number is a square; what follows two numbers is an argument."""
    decorate = image_options("as they are")
    assert called(decorate, "--size", *size) == {"images": ImageShape((64, 64), 3)}
    assert called(decorate, f"--size={size[0]}") == {"images": ImageShape((64, 64), 3)}

    @click.command(cls=ImageCommand)
    @click.argument("source")
    @decorate
    def command(source, images):
        click.echo(f"{source} {images.size}")

    done = CliRunner().invoke(command, ["--size", *size, "photos"])
    assert done.output == "photos (64, 64)\n"
    done = CliRunner().invoke(command, ["--size", "48x64", "2024"])
    assert done.output == "2024 (48, 64)\n"


@pytest.mark.parametrize("size", ["0", "64x", "a", "-1", "64x0", "6.5"])
def test_other_sizes_are_refused(size):
    @click.command(cls=ImageCommand)
    @image_options("as they are")
    def command(images):
        pass

    done = CliRunner().invoke(command, [f"--size={size}"])
    assert done.exit_code == 2
    assert (
        f"'{size}': expected a height and a width in pixels, such as 64, 64x48 or 64 48."
        in done.output
    )


def test_what_to_do_about_bad_files(tmp_path):
    """As options of a loader, which are left out where they are its defaults."""
    bad = tmp_path / "bad.csv"
    bad.write_text("path,error,first_seen\n")
    assert called(bad_file_options)["bad"].options() == {}
    got = called(bad_file_options, "--on-error", "replace", "--exclude", str(bad))["bad"]
    assert got == BadFiles("replace", str(bad))
    assert got.options() == {"on_error": "replace", "exclude": str(bad)}


def test_the_older_name_of_save_still_works():
    decorate = save_option("--out", click.Path(), "a.png", "The file.")
    assert called(decorate) == {"save": "a.png"}
    assert called(decorate, "--save", "b.png") == {"save": "b.png"}
    assert called(decorate, "--out", "c.png") == {"save": "c.png"}


def test_conversions(tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("path,error,first_seen\n")
    decorate = conversion_options("all", "load")
    assert called(decorate) == {"conversion": Conversion()}
    got = called(decorate, "--on-error", "skip", "--exclude", str(bad), "--overwrite")
    assert got == {"conversion": Conversion("skip", str(bad), True)}


def test_several_are_in_the_order_in_which_they_are_written():
    """In the help as in the code."""

    @click.command()
    @image_options("as they are")
    @table_options
    @click.option("--last")
    def command(**_):
        pass

    names = [option.name for option in command.params]
    assert names == ["size", "channels", "path_column", "label_column", "folder", "last"]
    said = CliRunner().invoke(command, ["--help"]).output
    assert "[default: as they are]" in " ".join(said.split())


def test_a_cluster():
    """With an address or none; a path behind it is no address."""
    assert called(ray_option) == {"ray": None}
    assert called(ray_option, "--ray") == {"ray": RayOption()}
    for address in ("auto", "ray://host:10001", "host:6379"):
        assert called(ray_option, "--ray", address) == {"ray": RayOption(address)}
    done = CliRunner().invoke(click.command()(ray_option(lambda ray: None)), ["--ray", "photos/"])
    assert done.exit_code == 2
    assert "put --ray at the end of the command" in " ".join(done.output.replace("│", " ").split())
    assert RayOption("auto").engine(3) == kl.Ray(cpus=3, address="auto")
    arguments = ["--finish", "--ray"]
    decorated = click.command()(conversion_options("a", "load")(lambda conversion: None))
    done = CliRunner().invoke(decorated, arguments)
    assert done.exit_code == 2
    assert "leave --ray out" in " ".join(done.output.split())
