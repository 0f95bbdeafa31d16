"""The methods with which a loader reports about itself are there in every loader."""

import numpy as np

import kloaders as kl
from kloaders.loaders.reports import Reports


def test_a_loader_reports_about_itself():
    loader = kl.ArraySequenceLoader(np.arange(10), batch_size=4)
    assert isinstance(loader, Reports)
    assert "10 samples in 3 batches" in loader.summary()
    assert "<table" in loader._repr_html_()
