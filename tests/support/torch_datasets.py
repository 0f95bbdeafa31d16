"""Datasets of test_from_torch, for worker processes too: nothing here imports Keras."""

import random

import numpy as np
import torch

SAMPLES = 23


class Numbers(torch.utils.data.Dataset):
    """Sample k is (a row with k in it, k)."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, k):
        return torch.tensor([k, k % 7], dtype=torch.float32), k


class Drawing(torch.utils.data.Dataset):
    """Sample k is a number from each global generator, and k."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, k):
        return np.array([torch.rand(1).item(), np.random.random(), random.random(), k])
