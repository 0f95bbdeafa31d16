"""Figures: missing measurements have neutral values."""

from kloaders.diagnostics.explain.measured import Measured, Run, Settings


def test_nothing_is_known_at_first():
    m = Measured(Settings(samples=10, batch_size=2, cores=4, workers=4))
    assert {m.read_s, m.cold, m.warm, m.ram, m.disk_rate, m.step_s, m.fit_s, m.model_from} == {None}
    assert (m.decode_s, m.transform_s, m.copy_s, m.alone_busy) == (0, 0, 0, 1)
    assert (m.settings.widened, m.settings.kept, m.settings.files_fit) == (1, 0, True)
    assert Run(5.0) == Run(5.0, 1.0, False)
