"""Faults, fuzz, memory, threads and the suite: long tests of kloaders' promises, which run for hours.

python -m tests.campaign                 # all parts, long; writes docs/promises/*.json
python -m tests.campaign faults fuzz     # these parts
python -m tests.campaign fuzz --only PNG # one entry of a part; other figures stay
python -m tests.campaign --short         # the short version that the test suite runs
python -m tests.campaign --page          # only docs/promises.md, from docs/promises/*.json

Each part is a module with `run(long) -> dict`; tests/test_campaign.py runs them short.
"""
