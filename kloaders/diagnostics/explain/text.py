"""Renders an explanation as text: names of the measurements, and the text for a terminal."""

from __future__ import annotations

from kloaders.diagnostics.explain.findings import Findings

__all__ = [
    "RESOURCES",
    "as_text",
    "limits_of",
    "next_step",
    "rate_of",
    "stages_of",
    "standing",
    "time_of",
    "verdict",
]

#: The possible bottlenecks of training, in words.
RESOURCES = {
    "model": "the model's step: the data arrive in time",
    "disk": "reading: the disk or the file system",
    "network": "the network, or the server that sends objects or batches",
    "decoders": "the decoders: all actors of the Ray cluster are busy",
    "cpu": "the processor: all cores are busy",
    "gil": "the GIL: threads wait for each other, and cores are idle",
    "copy": "copying: samples into batches, and batches to the device",
    "waiting": "waiting: no batches are prefetched for the model",
    "unknown": "unknown: no single measurement explains it",
}


def time_of(seconds: float | None) -> str:
    """Seconds in readable units.

    >>> time_of(0.0123), time_of(4.2e-5), time_of(2)
    ('12.3 ms', '42 µs', '2.00 s')
    """
    if seconds is None:
        return "-"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def stages_of(found: Findings) -> list[tuple[str, str, float]]:
    """-> name, description and seconds of each stage of a sample in one thread."""
    m = found.measured
    rows = [
        (
            "read",
            "wait for the network"
            if m.settings.remote
            else "read, from the disk"
            if m.disk_rate is not None
            else "wait for the source",
            m.read_s,
        ),
        ("decode", "decode", m.decode_s),
        ("transform", "transform", m.transform_s if m.settings.has_transform else None),
        ("copy", "copy into the batch", m.copy_s),
        (
            "device",
            "copy to the device",
            None if m.to_device_s is None else m.to_device_s / m.settings.batch_size,
        ),
        (
            "step",
            "the model's step",
            None if m.step_s is None else m.step_s / m.settings.batch_size,
        ),
    ]
    return [(name, words, seconds) for name, words, seconds in rows if seconds is not None]


def limits_of(found: Findings) -> list[tuple[str, str, float]]:
    """-> name, description and samples per second of each part that was measured alone."""
    m, s = found.measured, found.measured.settings
    rows: list[tuple[str, str, float | None]] = [
        ("disk", "only reading files", _most(m.disk_rate, m.disk_rate_more)),
        ("cold", "this loader, files on the disk", m.cold.rate if m.cold and m.disk_rate else None),
        (
            "warm",
            f"this loader, with {s.decoders} Ray actors"
            if s.decoders
            else "this loader, fetching"
            if s.remote
            else "this loader, files in memory",
            m.warm.rate if m.warm else None,
        ),
        (
            "ram",
            "this loader, decoded samples in RAM",
            m.ram.rate if m.ram and s.cacheable else None,
        ),
        ("model", "the model alone, on one batch", found.best),
        ("fit", "both together, in fit", s.batch_size / m.fit_s if m.fit_s else None),
    ]
    return [(name, words, rate) for name, words, rate in rows if rate]


def _most(*values: float | None) -> float | None:
    return max((v for v in values if v is not None), default=None)


def rate_of(found: Findings, rate: float) -> str:
    """Samples per second as text, with one digit if measurements contradict each other."""
    if not found.busy:
        return f"{rate:,.0f}"
    return f"about {float(f'{rate:.0e}'):,.0f}"


def verdict(found: Findings) -> str:
    """The headline."""
    if found.busy:
        return "The machine is busy with other programs, so the bottleneck cannot be determined."
    what = RESOURCES[found.bottleneck]
    if found.best is None:
        return f"The bottleneck of loading is {what}."
    return f"The bottleneck of training is {what}."


def standing(found: Findings) -> str:
    """The current speed, and the possible one."""
    if found.busy:
        return f"Measured: {'; '.join(found.busy)}. Run it again when no other program runs."
    m = found.measured
    who = "in fit" if m.fit_s else "for the loader alone"
    said = f"{found.now:,.0f} samples/s {who}, {found.reached:.0%} of what this machine can do"
    if found.best is not None and found.wait is not None:
        said += (
            f"; {found.best:,.0f} if the model never waited for data (it waits {found.wait:.0%} "
            "of the time)"
        )
    return said + "."


def next_step(found: Findings) -> str:
    """The recommended next step."""
    if found.busy:
        return "stop other programs on this machine, and run explain() again."
    if found.advice:
        return (
            "change the first setting, and run explain() again. If the samples per second do not "
            "increase, undo the change."
        )
    if found.bottleneck == "model":
        return (
            "make the model's step faster with mixed precision, a larger batch or another device; the "
            "loader keeps up."
        )
    if found.best is None:
        return "run explain(model), which measures whether the model waits for data."
    return (
        "make each sample cheaper: smaller images, a pack of decoded samples (kl.write_pack), or a "
        "cheaper transform."
    )


def as_text(found: Findings) -> str:
    """The explanation as text for a terminal."""
    m, s = found.measured, found.measured.settings
    lines = [found.title, "", verdict(found), *([] if found.busy else [found.why]), standing(found)]
    if s.kept and s.cacheable and not found.busy:
        lines.append(
            f"This is after the first epoch, with {s.kept:.0%} of the samples in the cache. In the first "
            f"epoch, the loader alone makes {found.first:,.0f} samples/s; its bottleneck is "
            f"{RESOURCES[found.first_bottleneck]}."
        )
    lines += ["", "One sample, in one thread:"]
    lines += _table([(words, time_of(seconds)) for _, words, seconds in stages_of(found)])
    lines += ["", "Samples per second:"]
    lines += _table([(words, rate_of(found, rate)) for _, words, rate in limits_of(found)])
    lines.append("")
    if found.best is None:
        lines.append(
            "No model was given, so it is not known whether it waits for data. Pass model=, or call "
            "explain() after a fit with LoaderCallback."
        )
    if found.advice:
        lines.append("Suggested changes:")
        for advice in found.advice:
            lines.append(f"  {advice.setting}")
            lines.append(f"      {advice.why}")
            said = f"      predicted: {advice.predicted:,.0f} samples/s, {advice.gain:.1f} times"
            if advice.measured is not None:
                said += (
                    f"; measured: {advice.measured:,.0f}, {advice.measured / found.now:.1f} times"
                )
            lines.append(said)
    elif not found.busy:
        lines.append(
            "Nothing to change: a faster loader would gain nothing."
            if found.bottleneck == "model"
            else "No setting is expected to gain more than 10%."
        )
    lines.append(f"Next: {next_step(found)}")
    lines.append(f"\nMeasured on {m.probed} samples in {m.seconds:.0f} s, on {s.cores} cores.")
    return "\n".join(lines)


def _table(rows: list[tuple[str, str]]) -> list[str]:
    left = max((len(name) for name, _ in rows), default=0)
    right = max((len(value) for _, value in rows), default=0)
    return [f"  {name.ljust(left)}  {value.rjust(right)}" for name, value in rows]
