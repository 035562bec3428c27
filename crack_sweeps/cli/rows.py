"""Records, plans and costs as names and values that a person reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crack_sweeps.console import human_bytes, human_seconds

if TYPE_CHECKING:
    from crack_sweeps.runs.plan import Cost, Plan
    from crack_sweeps.runs.record import RunRecord

Rows = list[tuple[str, str]]


def record_rows(record: RunRecord) -> Rows:
    """How a run ended."""
    reason = f" ({record.reason})" if record.reason else ""
    rows = [("run", record.run), ("status", record.status + reason)]
    if record.status == "FINISHED":
        rows += _score_rows(record)
    rows += [
        (name, f"{human_bytes(value)} ({record.vram['source']})")
        for name, value in record.vram.items()
        if name.endswith("_bytes")
    ]
    rows += [
        ("best epoch", f"{record.best_epoch} of {record.num_epochs}"),
        ("time", human_seconds(record.duration_s)),
        ("directory", record.run_dir),
        ("MLflow run", record.run_id or "not sent yet"),
    ]
    if record.quick_look:
        rows.append(("note", "a quick look: not to be ranked beside full runs"))
    return rows


def _score_rows(record: RunRecord) -> Rows:
    figures = record.metrics
    otsu, black_hat = figures["floor/otsu_crack_iou"], figures["floor/black_hat_crack_iou"]
    return [
        ("crack IoU", f"{figures['val/crack_iou']:.3f} pooled, {figures['val/crack_iou_image']:.3f} mean of images"),
        ("crack F1", f"{figures['val/crack_f1']:.3f} pooled, {figures['val/crack_f1_image']:.3f} mean of images"),
        ("precision", f"{figures['val/precision']:.3f}"),
        ("recall", f"{figures['val/recall']:.3f}"),
        ("measured on", f"{figures['val/num_images']:.0f} validation photos, whole"),
        ("threshold", f"{record.threshold:.2f}, chosen on these photos"),
        ("floors (IoU)", f"Otsu {otsu:.3f}, black-hat {black_hat:.3f}"),
    ]


def plan_rows(plan: Plan) -> Rows:
    """What a run would do; the resolved spec comes first, as it would be written."""
    data = plan.data
    found = f"{data['name']}: "
    if data["digest"] is None:
        found += data["note"]
    else:
        found += f"{data['num_train']} train, {data['num_val']} val, {data['num_test']} test; "
        found += f"crack is {data['mask_rule']}; digest {data['digest'][:12]}"
    disk = f"{human_bytes(plan.disk_peak_bytes)} while training, {human_bytes(plan.disk_final_bytes)} after"
    return [
        *((line, "") for line in plan.config.splitlines()),
        ("", ""),
        ("experiment file", plan.source),
        ("profile", plan.profile + (" (quick look)" if plan.quick_look else "")),
        *((f"  {key}", f"{old} -> {new}") for key, (old, new) in plan.changed_by_profile.items()),
        ("fingerprint", plan.fingerprint),
        ("data", found),
        ("device", f"{plan.device}, {plan.precision}"),
        *cost_rows(plan.cost),
        ("epochs", f"at most {plan.epochs}"),
        ("steps per epoch", str(plan.steps_per_epoch or "one crop per training photo")),
        ("disk", disk),
    ]


def cost_rows(cost: Cost) -> Rows:
    """What a model costs."""
    memory = cost.memory
    parts = {
        name.removesuffix("_bytes").replace("_", " "): value
        for name, value in memory.items()
        if name.endswith("_bytes") and name != "total_bytes" and value
    }
    return [
        ("model", cost.architecture),
        ("parameters", f"{cost.num_params / 1e6:.2f} M"),
        ("FLOPs", f"{cost.flops_per_crop / 1e9:.2f} G per {cost.crop_px} px crop (a multiply-add counts as two)"),
        ("peak memory", f"{human_bytes(memory['total_bytes'])} forecast at batch {cost.batch_size}"),
        *((f"  {name}", human_bytes(value)) for name, value in parts.items()),
        *([("  process in all", _process(cost))] if cost.process_bytes is not None else []),
    ]


def _process(cost: Cost) -> str:
    assert cost.process_bytes is not None
    runs = f"{cost.calibration_runs} run{'' if cost.calibration_runs == 1 else 's'} on this device"
    by = f"calibrated by {runs}" if cost.calibration_runs else "a rule of thumb until runs on this device are measured"
    return f"{human_bytes(cost.process_bytes)} with context and libraries, {by}"
