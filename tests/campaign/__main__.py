"""`python -m tests.campaign`: see the package."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import json
import sys
import time

from . import page

PARTS = ("faults", "fuzz", "memory", "threads", "suite")


def store(name, found, seconds, old):
    """Store the figures of a part; `old` are figures that stay."""
    page.RESULTS.mkdir(exist_ok=True)
    head = {"date": dt.datetime.now(dt.timezone.utc).date().isoformat()}
    head["seconds"] = round(seconds) + old.get("seconds", 0)
    figures = {key: {**old.get(key, {}), **value} for key, value in found.items()}
    text = json.dumps({**head, **figures}, indent=1)
    (page.RESULTS / f"{name}.json").write_text(text + "\n")


def main():
    parser = argparse.ArgumentParser("python -m tests.campaign", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=" ".join(PARTS))
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="run only this entry of a part"
    )
    parser.add_argument(
        "--short", action="store_true", help="a short run, as in the suite; stores nothing"
    )
    parser.add_argument("--page", action="store_true", help="only write docs/promises.md again")
    args = parser.parse_args()
    for name in [] if args.page else args.parts or PARTS:
        begin = time.monotonic()
        part = importlib.import_module(f"{__package__}.{name}")
        found = part.run(not args.short, args.only)
        print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
        if not args.short:
            old = page.result(name) if args.only else {}
            store(name, found, time.monotonic() - begin, old)
    if not args.short:
        page.PAGE.write_text(page.text())


if __name__ == "__main__":
    main()
