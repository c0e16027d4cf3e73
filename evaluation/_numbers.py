"""Numbers as people read them: three significant digits, an error bar where there is one, words where there is none."""

from __future__ import annotations

import math


def number(value: float | None) -> str:
    """Three significant digits; ``not measured`` for None and nan."""
    if value is None or math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:,.{digits}f}"
    return f"{value:.2e}"


def plus_minus(mean: float, error: float) -> str:
    """Mean ± standard error, both to the error's second digit; the mean alone where the error is not known."""
    if not (math.isfinite(mean) and math.isfinite(error) and error > 0):
        return number(mean)
    digits = 1 - math.floor(math.log10(error))
    if 0 <= digits <= 6:
        return f"{mean:.{digits}f} ± {error:.{digits}f}"
    return f"{number(mean)} ± {number(error)}"


def percent(value: float) -> str:
    """A relative error in words: ``3.1 %``; below a millionth as a number, for no one counts in 0.000001 %."""
    if not math.isfinite(value):
        return "not finite"
    return f"{100 * value:.3g} %" if value >= 1e-6 or value == 0 else number(value)


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if not math.isfinite(seconds):
        return "unknown time"
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size * (2 if size > 1 else 1):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
