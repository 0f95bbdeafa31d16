"""Faults, fuzz, memory, threads and the suite: what kloaders promises, tried for hours instead of seconds.

python -m tests.campaign                 # all of it, long; writes docs/promises/*.json
python -m tests.campaign faults fuzz     # these parts
python -m tests.campaign fuzz --only PNG # one entry of a part again, the others stay
python -m tests.campaign --short         # what the test suite runs of it
python -m tests.campaign --page          # docs/promises.md anew, from docs/promises/*.json

Each part is a module with `run(long) -> dict`; tests/test_campaign.py runs them short.
"""
