"""Plans as people read them: a table a stage, memory and time side by side, and totals of a lineage."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from midspan.plan.hardware import GIB
from midspan.plan.result import PUE, Plan, parallel_table
from midspan.train.metrics import StepMetrics


def show(
    console: Console, plans: Sequence[Plan], *, price_per_hour: float | None = None, pue: float = PUE
) -> None:
    """Print every plan, and totals where there are several that fit."""
    for plan in plans:
        _one(console, plan, price_per_hour, pue)
    if len(plans) > 1:
        _totals(console, plans, price_per_hour, pue)


def _one(console: Console, plan: Plan, price: float | None, pue: float) -> None:
    stage = plan.stage
    console.print(
        f"[bold]{stage.name}[/bold] on {plan.count} x {plan.device}: {_count(stage.model.num_parameters())} "
        f"parameters, {_count(stage.trained())} trained ({stage.method}), {_count(stage.tokens)} tokens in "
        f"{stage.steps:,} steps"
    )
    table = Table("memory of a device", "GiB", "a step", "seconds", "%", title=None)
    for column in (1, 3, 4):
        table.columns[column].justify = "right"
    left = sorted(plan.memory.parts.items(), key=lambda item: -item[1])
    right = sorted(plan.seconds.items(), key=lambda item: -item[1]) if plan.step_seconds > 0 else []
    for row in range(max(len(left), len(right))):
        memory = (left[row][0], f"{left[row][1] / GIB:,.2f}") if row < len(left) else ("", "")
        seconds = ("", "", "")
        if row < len(right):
            share = right[row][1] / plan.step_seconds
            seconds = (right[row][0], f"{right[row][1]:,.3f}", f"{share:.1%}")
        table.add_row(*memory, *seconds)
    table.add_section()
    fullest = f"in all ({plan.memory.moment})"
    step = ("in all", f"{plan.step_seconds:,.3f}", "") if right else ("", "", "")
    table.add_row(fullest, f"{plan.memory.total / GIB:,.2f} of {plan.limit / GIB:,.1f}", *step)
    console.print(table)
    if plan.fits:
        each = f" ({plan.tokens_per_second / plan.count:,.0f} a GPU)" if plan.count > 1 else ""
        mfu = f", {plan.mfu:.0%} of the peak" if plan.mfu else ""
        console.print(
            f"  {plan.tokens_per_second:,.0f} tokens/s{each}{mfu}; "
            f"{duration(plan.hours)}{_money(plan, price, pue)}"
        )
        if plan.layout is not None:
            console.print(f"  train.rows_per_pass = {stage.rows_per_pass}, and this table for the recipe:")
            console.print(table_text(plan), highlight=False, markup=False)
    for line in plan.advice:
        console.print(f"  {line}", highlight=False, markup=False)
    for line in plan.notes:
        console.print(f"  {line}", style="dim", markup=False)
    console.print()


def _money(plan: Plan, price: float | None, pue: float) -> str:
    words = f", {plan.device_hours:,.0f} GPU hours" if plan.layout is not None else ""
    if plan.watts:
        words += f", {plan.kilowatt_hours(pue):,.0f} kWh at {plan.watts:.0f} W and PUE {pue:g}"
    return words + (f", {plan.device_hours * price:,.2f} at {price:g} a device hour" if price is not None else "")


def _totals(console: Console, plans: Sequence[Plan], price: float | None, pue: float) -> None:
    table = Table(
        "stage", "tokens", "tokens/s", "time", "device hours", "kWh", *(["cost"] if price is not None else [])
    )
    for plan in plans:
        if plan.fits:
            cells = [f"{plan.tokens_per_second:,.0f}", duration(plan.hours), f"{plan.device_hours:,.0f}"]
            cells += [f"{plan.kilowatt_hours(pue):,.0f}" if plan.watts else ""]
            cells += [f"{plan.device_hours * price:,.0f}"] if price is not None else []
        else:
            cells = ["does not fit"]
        table.add_row(plan.stage.name, _count(plan.stage.tokens), *cells)
    fitting = [plan for plan in plans if plan.fits]
    table.add_section()
    hours = sum(plan.device_hours for plan in fitting)
    cells = [_count(sum(plan.stage.tokens for plan in fitting)), "", duration(sum(p.hours for p in fitting))]
    cells += [f"{hours:,.0f}", f"{sum(plan.kilowatt_hours(pue) for plan in fitting):,.0f}"]
    table.add_row("in all", *cells, *([f"{hours * price:,.0f}"] if price is not None else []))
    console.print(table)


def table_text(plan: Plan) -> str:
    """The `[parallel]` table to put into the recipe."""
    assert plan.layout is not None
    lines = ["[parallel]"]
    for name, value in parallel_table(plan.layout).items():
        text = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else value
        lines.append(f"{name} = {text}")
    return "\n".join(f"    {line}" for line in lines)


def measured(steps: Sequence[StepMetrics], plan: Plan) -> dict[str, dict[str, float]]:
    """What a run's steps measured, beside what the plan of its recipe says.

    The first step is left out where there are others: it makes kernels.
    """
    counted = steps[1:] or steps
    before = steps[0] if len(steps) > 1 else None
    tokens = steps[-1].tokens - (before.tokens if before else 0)
    seconds = steps[-1].seconds - (before.seconds if before else 0)
    rows = {
        "tokens a second": (plan.tokens_per_second, tokens / seconds),
        "seconds a step": (plan.step_seconds, seconds / len(counted)),
        "tokens a step": (float(plan.stage.tokens_per_step), tokens / len(counted)),
        "hours in all": (plan.hours, seconds / len(counted) * plan.stage.steps / 3600),
    }
    return {
        name: {"predicted": predicted, "measured": found, "ratio": predicted / found}
        for name, (predicted, found) in rows.items()
    }


def show_measured(console: Console, rows: dict[str, dict[str, float]]) -> None:
    """Print `measured`."""
    table = Table("", "predicted", "measured", "predicted / measured")
    for name, row in rows.items():
        table.add_row(name, f"{row['predicted']:,.3f}", f"{row['measured']:,.3f}", f"{row['ratio']:.2f}")
    console.print(table)


def duration(hours: float) -> str:
    """Hours as people say them."""
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    return f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:,.1f} minutes"


def _count(number: float) -> str:
    for size, word in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:,.1f} {word}"
    return f"{number:,.0f}"
