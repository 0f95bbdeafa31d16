"""The table of phases in the module's docstring, compared with recorded events."""

from __future__ import annotations

import re
from functools import partial

from kloaders.keras_api import phases
from kloaders.keras_api.phases import Phase
from kloaders.keras_api.tickets import Tickets
from tests.support.recorded_keras import KERAS, batches_in, replay, unknown


def table():
    """The table of the module's docstring: {(phase, event): phases that may follow}."""
    lines = [line.split("|") for line in phases.__doc__.splitlines() if "|" in line]
    header, *rows = [[cell.strip() for cell in line] for line in lines]
    assert header == ["phase", "B", "E", "#", "i"]
    return {
        (Phase[row[0]], event): {
            Phase[name]
            for name in re.findall(
                r"\b[A-Z]{4,}\b", cell[: cell.find(":")] if ":" in cell else cell
            )
        }
        for row in rows
        for event, cell in zip(header[1:], row[1:], strict=True)
    }


PHASES = table()


def test_the_table_is_whole():
    """Every phase has a row, and is reached."""
    assert {phase for phase, _ in PHASES} == set(Phase)
    assert set().union(*PHASES.values()) == set(Phase)


class Watched(Tickets):
    """Notes which row and column of the table each event took, and what followed."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.steps = set()

    def note(self, event, function, *args):
        before, training = self._phase, self._mid_training
        result = function(*args)
        if not training or event == "i":
            self.steps.add((before, event, self._phase))
        return result

    def _epoch_begins(self):
        return self.note("B", super()._epoch_begins)

    def _epoch_ends(self):
        return self.note("E", super()._epoch_ends)

    def _size_read(self):
        return self.note("#", super()._size_read)

    def _batch_read(self, index):
        return self.note("i", super()._batch_read, index)

    def _number_read(self, index):
        return self.note("i", super()._number_read, index)


def test_the_table_is_what_happens():
    """Each recorded event leads to a phase of the table, and each entry of the table occurs."""
    taken = set()
    for (_, name), events in KERAS.items():
        for callback in (False, True):
            tickets = Watched(batches_in(name), None, asker=unknown)
            replay(events, tickets, callback=callback and name != "validated on 2 steps")
            taken |= tickets.steps
    by_hand = Watched(3, None, asker=unknown)
    for events in ("BB0E", "B01B", "012E"):
        for event in events:
            {"B": by_hand.begin, "E": by_hand.end}.get(event, partial(by_hand.locate, 0))()
    taken |= by_hand.steps
    found = {}
    for before, event, after in taken:
        found.setdefault((before, event), set()).add(after)
    assert found == PHASES
