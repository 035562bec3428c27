"""What a forecast leaves out, learned from measured peaks: context, libraries, workspaces, fragmentation, photos."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from crack_sweeps.runs.directory import RunDirectory, all_runs
from crack_sweeps.training.footprint import DeviceType, MemoryForecast

GIB = 1 << 30
NEWEST = 200  # runs that are looked at: older ones were made by older code, and reading them would take time
MAX_UNDER, MAX_OVER = 0.05, 0.10  # DESIGN's bounds on a calibrated forecast

# Before the first run. CPU: 13 quick looks (3 models, 2 data sets, torch 2.13) held 0.91 to 1.24 GiB beyond their
# forecast: Python, torch, timm, albumentations and decoded photos. CUDA: context and libraries, and what the allocator
# keeps beyond what it hands out.
DEFAULTS: dict[DeviceType, tuple[float, int]] = {"cpu": (1.0, int(1.15 * GIB)), "cuda": (1.05, int(0.6 * GIB))}
_FACTORS = tuple(step / 100 for step in range(90, 131))
_GROSS = 0.25  # share of a measurement by which it must differ from all others to count as another program's doing
_HALVED = b'"crack_sweeps.micro_batch"'  # the run's event that its batch shrank: its forecast is of another shape


@dataclass(frozen=True)
class Calibration:
    """From the forecast of the allocator's peak to what a trial's process will hold.

    Args:
        device: The card's name, or the processor's.
        overhead_bytes: Held whatever the model.
        num_runs: Measured runs that this comes from; 0 is a default for the kind of device.
        error: Largest relative error on those runs, over or under; None without runs.
        factor: What the forecast is multiplied with.
        forecast_error: Largest relative error of the forecast itself against the allocator's peak; None without
            such a measurement, as on a CPU.
    """

    device: str
    overhead_bytes: int
    num_runs: int
    error: float | None
    factor: float = 1.0
    forecast_error: float | None = None

    def peak(self, forecast: MemoryForecast) -> int:
        """Bytes that a trial needs: on a GPU with its context, on a CPU resident with all its libraries."""
        return _peak(forecast.total_bytes, self.factor, self.overhead_bytes)


@dataclass(frozen=True)
class Measurement:
    """One run: what was forecast and what its process held, in bytes; the allocator's part where it was counted."""

    forecast_bytes: int
    held_bytes: int
    allocated_bytes: int | None


def calibrate(device: str, outputs: Path, *, on: DeviceType) -> Calibration:
    """Fit to the newest runs on that device; to defaults where there is none.

    Args:
        device: As `environment.json` has it in `device_name`: the card's name, `host_name()` for the processor.
        outputs: Folder of run directories.
        on: The kind of device.
    """
    newest = islice(all_runs(outputs=outputs), NEWEST)
    measured = _without_gross([found for run in newest if (found := _measured(run, device, on)) is not None])
    default_factor, default_overhead = DEFAULTS[on]
    if not measured:
        return Calibration(device, default_overhead, 0, None, factor=default_factor)
    factor, overhead_bytes = _fit(measured, default_factor)
    allocated = [(m.forecast_bytes, m.allocated_bytes) for m in measured if m.allocated_bytes]
    return Calibration(
        device=device,
        overhead_bytes=overhead_bytes,
        num_runs=len(measured),
        error=_largest_error(measured, factor, overhead_bytes),
        factor=factor,
        forecast_error=max((abs(foreseen / peak - 1) for foreseen, peak in allocated), default=None),
    )


def held_bytes(row: Mapping[str, Any]) -> float | None:
    """What the process of a trial held at its peak, from its row of the ledger; None if that was not measured."""
    peaks: Mapping[str, float] = row["peaks"]
    known = peaks.get("vram/peak_process_bytes") or peaks.get("memory/peak_rss_bytes")
    reserved = peaks.get("vram/peak_reserved_bytes")
    if known is None and reserved is not None:  # the driver does not tell: the context is taken to be the default's
        return reserved + DEFAULTS["cuda"][1]
    return known


def host_name() -> str:
    """What a run on the processor calls its device."""
    return platform.processor() or platform.machine()


def _measured(run: RunDirectory, device: str, on: DeviceType) -> Measurement | None:
    """What a run tells about memory; None if it ran elsewhere, was not measured, or shrank its batch on the way."""
    try:
        environment = json.loads(run.environment.read_bytes())
        if environment["device_name"] != device or environment["device"].partition(":")[0] != on:
            return None
        vram = json.loads(run.vram.read_bytes())
        if _HALVED in run.events.read_bytes():
            return None
        forecast_bytes = int(vram["forecast"]["total_bytes"] - vram["forecast"]["overhead_bytes"])
        peaks = vram["peaks"]
        if on == "cpu":
            held, allocated = int(peaks["memory/peak_rss_bytes"]), None
        else:
            allocated = int(peaks["vram/peak_allocated_bytes"])
            # Where the driver does not tell, as in many containers, the context is taken to be the default's.
            counted = peaks.get("vram/peak_process_bytes")
            held = int(counted or peaks["vram/peak_reserved_bytes"] + DEFAULTS["cuda"][1])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # a run that was cut short or edited: no figure
        return None
    return Measurement(forecast_bytes, held, allocated) if forecast_bytes > 0 and held > 0 else None


def _without_gross(measured: Sequence[Measurement]) -> list[Measurement]:
    """Without runs that stand far apart from the rest, by the median of overheads and the median distance from it."""
    if len(measured) < 5:
        return list(measured)
    overheads = [m.held_bytes - m.forecast_bytes for m in measured]
    middle = statistics.median(overheads)
    spread = statistics.median(abs(overhead - middle) for overhead in overheads)
    return [
        m
        for m, overhead in zip(measured, overheads, strict=True)
        if abs(overhead - middle) <= max(6 * spread, _GROSS * m.held_bytes)
    ]


def _fit(measured: Sequence[Measurement], default_factor: float) -> tuple[float, int]:
    """Factor and overhead that lie above every run, as close as can be.

    Too high makes a trial wait, too low kills it, so the line goes through the highest run. Only where another run
    would then be more than 10 % over, it comes down, to 5 % below the highest at most.
    """
    best = default_factor, 0
    for under in (0.0, 0.01, 0.02, 0.03, 0.04, MAX_UNDER):
        best = _closest(measured, default_factor, under)
        if _largest_error(measured, *best) <= MAX_OVER:
            break
    return best


def _closest(measured: Sequence[Measurement], default_factor: float, under: float) -> tuple[float, int]:
    """The line that is nowhere more than `under` too low, with the least error; nearest to the default if alike.

    Runs of one size say nothing about the factor: whatever it is, the overhead makes up for it.
    """
    lines = [(factor, _smallest_overhead(measured, factor, under)) for factor in _FACTORS]
    errors = [_largest_error(measured, *line) for line in lines]
    alike = [line for line, error in zip(lines, errors, strict=True) if error <= min(errors) + 0.01]
    return min(alike, key=lambda line: abs(line[0] - default_factor))


def _smallest_overhead(measured: Sequence[Measurement], factor: float, under: float) -> int:
    needed = (((1 - under) * m.held_bytes - factor * m.forecast_bytes) for m in measured)
    return max(0, round(max(needed) + 1))


def _largest_error(measured: Sequence[Measurement], factor: float, overhead_bytes: int) -> float:
    return max(_errors(measured, factor, overhead_bytes))


def _errors(measured: Sequence[Measurement], factor: float, overhead_bytes: int) -> Iterator[float]:
    for m in measured:
        yield abs(_peak(m.forecast_bytes, factor, overhead_bytes) / m.held_bytes - 1)


def _peak(forecast_bytes: int, factor: float, overhead_bytes: int) -> int:
    return round(factor * forecast_bytes) + overhead_bytes
