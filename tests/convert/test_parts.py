"""Conversions by several processes: the bytes of one process, kills, errors, the commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import kloaders as kl
from kloaders.cli import main as cli
from kloaders.convert.journal import locked
from kloaders.convert.parts import checked_part, shards_of
from tests.support.packs import Stored, contents
from tests.support.parts import SAMPLES, data, finish_records, names, pack, records
from tests.support.recording import numbers_of, picture_of

KINDS = pytest.mark.parametrize(
    ("write", "finish"),
    [(pack, kl.finish_pack), (records, finish_records)],
    ids=["pack", "tfrecords"],
)


@pytest.mark.parametrize("count", [1, 3, 50])
@KINDS
def test_the_bytes_of_one_process(
    tmp_path: Path, write: Any, finish: Any, count: int, caplog: Any
) -> None:
    """In any order of the parts, more of them than shards too; nothing has its place before the end."""
    whole = write(tmp_path / "whole")
    counts = []
    for k in reversed(range(count)):
        written = write(tmp_path / "parts", part=(k, count))
        counts.append(written.samples)
        assert (written.files, written.validation, written.errors) == ([], [], [])
        assert not [p for p in (tmp_path / "parts").iterdir() if p.is_file()]
    assert sum(counts) == SAMPLES
    assert ("is empty, since there are only" in caplog.text) == (count == 50)
    found = finish(tmp_path / "parts")
    assert data(tmp_path / "parts") == data(tmp_path / "whole")
    assert names(tmp_path / "parts") == names(tmp_path / "whole")
    wanted = [[os.path.basename(f) for f in files] for files in (whole.files, whole.validation)]
    assert [[os.path.basename(f) for f in files] for files in found[:2]] == wanted
    assert all(map(os.path.exists, found.files + found.validation))
    assert found[2:] == whole[2:]


def test_shards_are_shared_out() -> None:
    """Each shard to one part, as equal as may be."""
    for count in range(1, 9):
        for shards in range(20):
            parts = [list(shards_of((k, count), shards)) for k in range(count)]
            assert [shard for part in parts for shard in part] == list(range(shards))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("part", [(2, 2), (-1, 2), (0, 0), 3, "0/4", (0.5, 2)])
def test_no_part(part: Any, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError), match=r"part=.*such as \(0, 4\)"):
        checked_part(part)


@KINDS
def test_missing_parts_are_named(tmp_path: Path, write: Any, finish: Any) -> None:
    """Also one that failed; the same call finishes when they are there."""
    with pytest.raises(FileNotFoundError, match=r"no parts.*--part k/n"):
        finish(tmp_path / "a")
    for k in (1, 3):
        write(tmp_path / "a", part=(k, 4))
    with pytest.raises(FileNotFoundError, match=r"2 of 4 parts.*: 0, 2\. .*part=\(0, 4\)"):
        finish(tmp_path / "a")
    for k in (0, 2):
        write(tmp_path / "a", part=(k, 4))
    finish(tmp_path / "a")
    with pytest.raises(FileExistsError, match="already exists"):
        write(tmp_path / "a", part=(0, 4))
    with pytest.raises(FileNotFoundError, match="no parts"):
        finish(tmp_path / "a")
    write(tmp_path / "whole")
    assert data(tmp_path / "a") == data(tmp_path / "whole")


@KINDS
def test_other_arguments_are_refused(tmp_path: Path, write: Any, finish: Any) -> None:
    """Another count of parts, other samples: when a part begins, and when all are finished."""
    write(tmp_path / "a", part=(0, 2))
    with pytest.raises(FileExistsError, match=r"parts was 2, is 3.*remove that folder"):
        write(tmp_path / "a", part=(1, 3))
    other = Stored([np.arange(2)] * SAMPLES)
    for part in ((0, 2), (1, 2)):
        with pytest.raises(FileExistsError, match=r"other arguments.*loader"):
            write(tmp_path / "a", other, part=part)
    write(tmp_path / "b", other, part=(1, 2))
    # Both began at the same moment, and neither saw the other's.
    name = "part-00001-of-00002.jsonl"
    (place,) = (p for p in (tmp_path / "a").iterdir() if "unfinished" in p.name)
    (elsewhere,) = (p for p in (tmp_path / "b").iterdir() if "unfinished" in p.name)
    (place / name).write_bytes((elsewhere / name).read_bytes())
    with pytest.raises(FileExistsError, match=r"different arguments.*loader.*Remove"):
        finish(tmp_path / "a")


@KINDS
def test_what_is_there_stays_until_the_end(tmp_path: Path, write: Any, finish: Any) -> None:
    """With overwrite=True what is there is replaced when all parts are there, and not before."""
    write(tmp_path / "whole")
    write(tmp_path / "a", Stored([np.arange(2)] * SAMPLES))
    before = data(tmp_path / "a")
    with pytest.raises(FileExistsError, match="already exists"):
        write(tmp_path / "a", part=(0, 2))
    for k in range(2):
        write(tmp_path / "a", part=(k, 2), overwrite=True)
    there = {name: (tmp_path / "a" / name).read_bytes() for name in before}
    assert there == before
    with pytest.raises(FileExistsError, match="already exists"):
        finish(tmp_path / "a")
    finish(tmp_path / "a", overwrite=True)
    assert data(tmp_path / "a") == data(tmp_path / "whole")


@KINDS
def test_what_parts_made_is_not_kept(tmp_path: Path, write: Any, finish: Any) -> None:
    """if_exists="keep" is for what one process has made: no journal of that outlives its files."""
    for k in range(2):
        write(tmp_path / "a", part=(k, 2), if_exists="keep")
    finish(tmp_path / "a")
    for part in (None, (0, 2)):
        with pytest.raises(FileExistsError, match="already exists"):
            write(tmp_path / "a", part=part)
    write(tmp_path / "a", if_exists="overwrite")
    first = write(tmp_path / "a")  # kept
    for k in range(2):
        write(tmp_path / "a", part=(k, 2), if_exists="overwrite")
    assert write(tmp_path / "a") == first  # still that of one process
    finish(tmp_path / "a", overwrite=True)
    assert not list((tmp_path / "a").glob(".*finished.jsonl"))
    with pytest.raises(FileExistsError, match="already exists"):
        write(tmp_path / "a")


def test_a_part_that_is_being_written(tmp_path: Path) -> None:
    """Neither a second process nor `finish` may run at the same time."""
    for k in range(2):
        pack(tmp_path, part=(k, 2))
    with locked(str(tmp_path / "unfinished" / "part-00001-of-00002.jsonl")):
        pack(tmp_path, part=(0, 2))
        with pytest.raises(BlockingIOError, match="is writing to"):
            pack(tmp_path, part=(1, 2))
        with pytest.raises(BlockingIOError, match="is writing to"):
            kl.finish_pack(tmp_path)
    assert kl.finish_pack(tmp_path).samples == SAMPLES


def test_samples_that_do_not_load(tmp_path: Path, caplog: Any) -> None:
    """All of one part may be missing; all errors are told at the end."""
    stored = [ValueError("bad") if k < 4 else np.array([k, k]) for k in range(8)]

    def write(to: Path, stored: Any, **options: Any) -> Any:
        loader = Stored(stored, on_error="skip", workers=0)
        return kl.write_pack(loader, to, shard_size=32, progress=False, **options)

    write(tmp_path / "whole", stored)
    assert [len(write(tmp_path / "a", stored, part=(k, 2)).errors) for k in range(2)] == [4, 0]
    caplog.clear()
    written = kl.finish_pack(tmp_path / "a")
    assert "4 samples failed to load" in caplog.text
    assert [error.index for error in written.errors] == [0, 1, 2, 3]
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")


def test_files_that_changed_between_the_calls(tmp_path: Path) -> None:
    """A shard that is being rewritten does not count as finished."""
    import cv2

    paths = [tmp_path / f"{k}.png" for k in range(4)]
    for k, path in enumerate(paths):
        cv2.imwrite(str(path), picture_of(k, 4)[..., ::-1])

    def write(k: int) -> Any:
        return kl.write_pack(
            paths, tmp_path / "a", shard_size=96, progress=False, part=(k, 2), workers=1
        )

    write(0)
    write(1)
    paths[1].write_bytes(b"broken now")
    with pytest.raises(kl.SampleError, match=r"1\.png"):
        write(0)
    with pytest.raises(FileNotFoundError, match=r"1 of 2 parts are not finished: 0\."):
        kl.finish_pack(tmp_path / "a")
    cv2.imwrite(str(paths[1]), picture_of(7, 4)[..., ::-1])
    write(0)
    kl.finish_pack(tmp_path / "a")
    loader = kl.PackSequenceLoader(tmp_path / "a", 4, shuffle=False)
    assert numbers_of(loader[0]) == [0, 7, 2, 3]
    loader.verify()


# Runs in a process of its own, without other threads: each try is a fork of it.
KILLS = """
    import os, random, signal, sys
    from pathlib import Path
    import kloaders as kl
    from tests.support import parts as t
    folder, kind, rng = Path(sys.argv[1]), sys.argv[2], random.Random(int(sys.argv[3]))
    write, finish = (t.pack, kl.finish_pack) if kind == "pack" else (t.records, t.finish_records)
    sources = t.source
    t.source = lambda: sources(workers=0)

    def forked(call, moments):
        # Killed after so many function calls and returns; None for never. Gives how many there were.
        out, into = os.pipe()
        child = os.fork()
        if child:
            os.close(into)
            status = os.waitpid(child, 0)[1]
            assert status in (0, signal.SIGKILL), status
            with open(out) as told:
                return told.read()
        done = 0

        def count(*event):
            nonlocal done
            done += 1
            if done == moments:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        call()
        sys.setprofile(None)
        os.write(into, str(done).encode())
        os._exit(0)

    write(folder / "whole")
    whole = t.data(folder / "whole")
    of_part = int(forked(lambda: write(folder / "probe", part=(0, 3)), None))
    for k in (1, 2):
        write(folder / "probe", part=(k, 3))
    of_end = int(forked(lambda: finish(folder / "probe"), None))
    begun = resumed = 0
    for attempt in range(12):
        to = folder / str(attempt)
        for k in rng.sample(range(3), 3):
            def part():
                write(to, part=(k, 3))
            for _ in range(2):
                if forked(part, rng.randrange(of_part)):
                    break
                begun += 1
            else:
                assert forked(part, None)
            assert not [p for p in to.iterdir() if p.is_file()], list(to.iterdir())
        for _ in range(4):
            if forked(lambda: finish(to), rng.randrange(of_end)):
                break
            resumed += 1
            there = [p for p in to.iterdir() if "unfinished" in p.name and not p.name.endswith("done")]
            if not there:
                break  # killed when all was done
            if kind == "pack" and (to / "pack.json").exists():
                kl.PackSequenceLoader(to).verify()
            try:  # nobody writes while it is not done
                write(to, part=(0, 3), overwrite=True)
            except FileExistsError:
                pass
        else:
            assert forked(lambda: finish(to), None)
        assert t.data(to) == whole, list(to.iterdir())
    print(begun, resumed)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("kind", ["pack", "tfrecords"])
def test_killed_at_random_moments(tmp_path: Path, kind: str) -> None:
    """kill -9 in parts and at the end, then the same call: the bytes of one that nobody killed."""
    seed = str(np.random.default_rng().integers(2**31))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLS), str(tmp_path), kind, seed],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**os.environ, "KLOADERS_WORKER": "1"},  # without Keras: each kill is a fork of it
    )
    assert done.returncode == 0, (seed, done.stderr)
    begun, resumed = map(int, done.stdout.split()[-2:])
    assert begun >= 10, done.stdout
    assert resumed >= 5, done.stdout


def test_processes_at_the_same_time(tmp_path: Path) -> None:
    """Real processes on one folder: their rows in a shared file do not overlap."""
    code = """
        import sys
        from pathlib import Path
        from tests.support.parts import pack
        pack(Path(sys.argv[1]), part=(int(sys.argv[2]), 3))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "a")]
    env = {**os.environ, "KLOADERS_WORKER": "1"}
    running = [subprocess.Popen([*command, str(k)], env=env) for k in range(3)]
    assert [process.wait(100) for process in running] == [0, 0, 0]
    kl.finish_pack(tmp_path / "a")
    pack(tmp_path / "whole")
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of six pictures."""
    import cv2

    for k in range(12):
        folder = tmp_path / "photos" / ("cat" if k < 6 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{k:02}.png"), picture_of(k, 4 + k)[..., ::-1])
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("pack", ["--size", "8", "8", "--shard-size", "400"]),
        ("tfrecord", ["--shards", "5"]),
        ("tfrecord", ["--shards", "4", "--validation", "0.25", "--name", "some"]),
    ],
    ids=["pack", "tfrecord", "split"],
)
def test_the_commands(photos: Path, tmp_path: Path, command: str, options: list[str]) -> None:
    """--part K/N in each of N jobs, then --finish: what one command makes and says."""

    def run(to: str, *more: str) -> Any:
        return CliRunner().invoke(
            cli.cli, [command, str(photos), str(tmp_path / to), *options, *more]
        )

    assert run("whole").exit_code == 0
    for k in range(3):
        done = run("a", "--part", f"{k}/3")
        assert done.exit_code == 0, done.output
        assert f"part {k} of 3 is written, " in done.stdout
        assert "--finish" in done.stdout
    report = json.loads(run("a", "--part", "0/3", "--json").stdout)
    assert report["part"] == [0, 3]
    missing = run("b", "--finish")
    assert missing.exit_code == 1
    assert "--part k/n" in missing.stderr
    done = run("a", "--finish")
    assert done.exit_code == 0, done.output
    assert "12 samples" in done.stdout
    assert "In Python" in done.stdout
    assert data(tmp_path / "a") == data(tmp_path / "whole")
    assert run("a", "--part", "0/3", "--finish").exit_code == 2
    wrong = run("a", "--part", "3/3")
    assert wrong.exit_code == 2
    assert "such as 0/4" in wrong.stderr


@pytest.mark.ray
def test_the_commands_on_a_cluster(
    ray: Any, photos: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """--ray, by relative paths: the bytes of this process, and the same report."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Any:
        done = CliRunner().invoke(cli.cli, words)
        assert done.exit_code == 0, done.output
        return done

    for command, options in (
        ("pack", ["--shard-size", "400", "--size", "8", "8"]),
        ("tfrecord", ["--shards", "5"]),
    ):
        run(command, "photos", f"{command} here", *options)
        run(command, "photos", f"{command} there", *options, "--ray")
        assert data(tmp_path / f"{command} there") == data(tmp_path / f"{command} here")
    (here, there) = (
        json.loads(run("verify", "photos", "--json", "-", *more).stdout) for more in ([], ["--ray"])
    )
    assert {**here, "seconds": 0} == {**there, "seconds": 0}


def test_an_unfinished_pack_says_so(tmp_path: Path) -> None:
    pack(tmp_path / "a", part=(0, 2))
    with pytest.raises(FileNotFoundError, match=r"parts of a pack.*finish_pack"):
        kl.PackSequenceLoader(tmp_path / "a")


def test_the_recipes_of_the_page(photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The commands in docs/many-machines.md for SLURM and Kubernetes, by their environment variables."""
    page = (Path(__file__).parents[2] / "docs" / "many-machines.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> None:
        words = shlex.split(os.path.expandvars(line).replace("/data/", ""))
        done = CliRunner().invoke(cli.cli, words[1:])
        assert done.exit_code == 0, done.output

    (slurm,) = re.findall(r'^kloaders pack photos .*--part ".*"$', page, re.MULTILINE)
    (finish,) = re.findall(r'--wrap "(kloaders pack .*--finish)"', page)
    (kubernetes,) = re.findall(r'args: \["(kloaders pack .*)"\]', page)
    for line, count in ((slurm, 3), (kubernetes, 16)):
        for k in range(count):
            monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(k))
            monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", str(count))
            monkeypatch.setenv("JOB_COMPLETION_INDEX", str(k))
            run(line)
        run(finish)
        assert kl.PackSequenceLoader("packed").samples == 12
        shutil.rmtree("packed")
