"""Records what the programs of docs/ray-train.md do: the samples that the model gets in each step."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any


def recorded(model: Any) -> Any:
    """The model; each step that is done is a line of a file, and KILL names one that ends the process."""
    import torch.distributed as dist

    train_step = model.train_step
    folder = Path(os.environ["RECEIVED"])
    kill = json.loads(os.environ["KILL"])

    def noted(data: Any) -> Any:
        rank = dist.get_rank() if dist.is_initialized() else 0
        step = int(model.optimizer.iterations)
        key = f"{float(model.optimizer.learning_rate):g}"
        if {"rank": rank, "step": step, "rate": key} == kill:
            try:
                os.close(os.open(folder.parent / "killed", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        found = train_step(data)
        samples = [round(96 * float(value)) for value in data[0].reshape(-1)]
        line = {"rank": rank, "step": step, "rate": key, "samples": samples, "pid": os.getpid()}
        with open(folder / f"{os.getpid()}", "a") as file:
            file.write(json.dumps(line) + "\n")
        return found

    model.train_step = noted
    return model
