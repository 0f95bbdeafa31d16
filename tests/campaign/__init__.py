"""Faults, fuzz, memory, threads and the suite: tests of what kloaders promises, for hours instead of seconds.

python -m tests.campaign                 # all parts, long; writes docs/promises/*.json
python -m tests.campaign faults fuzz     # these parts
python -m tests.campaign fuzz --only PNG # one entry of a part; the figures of others stay
python -m tests.campaign --short         # the short version that the test suite runs
python -m tests.campaign --page          # only docs/promises.md, from docs/promises/*.json

Each part is a module with `run(long) -> dict`; tests/test_campaign.py runs them short.
"""
