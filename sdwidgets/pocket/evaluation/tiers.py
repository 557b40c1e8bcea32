"""What Pocket must reach: one table, and the tier that a set of measured rows has reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BELOW = "below"
TIERS = ("CPU", "GPU", "stretch")  # each demands more than the one before
SPLITS = ("seen", "held out")


MARGIN = 0.03  # how far below a tier's value the lower end of a rate's 95% interval may lie


@dataclass(frozen=True)
class Bar:
    """A row of the table. `values`: what is asked for each of `TIERS`, of a rate that it is measured, with a lower bound at most `MARGIN`
    below, of decibels that the lower bound reaches it. None: nothing is asked, and `target` is told beside what is reached."""

    name: str
    values: tuple[float | None, float, float]
    unit: str = "rate"  # "rate" in 0..1, or "dB"
    scale: str = ""  # what others reach on their own tests, for scale
    target: float | None = None


GLYPHS, WHOLE = ("VAE reconstruction, PSNR over glyph pixels only", "VAE reconstruction, PSNR over the whole picture")
TURBO = "4-step turbo"

BARS: tuple[Bar, ...] = (
    Bar(GLYPHS, (22, 25, 28), "dB"),
    Bar(WHOLE, (27, 30, 33), "dB", "SD's KL-f8 24.2"),
    Bar("one object", (0.95, 0.98, 0.995), scale="SD 1.5 .97"),
    Bar("background and shape colour", (0.97, 0.98, 0.99), scale="SD 1.5 .76"),
    Bar("two objects", (0.85, 0.93, 0.98), scale="SD 1.5 .38, SDXL .74"),
    Bar("relation", (None, 0.85, 0.95), scale="SD 1.5 .04", target=0.85),
    Bar("count to four", (None, 0.85, 0.95), scale="SD 1.5 .35", target=0.85),
    Bar("colour bound to the right shape", (0.80, 0.90, 0.97), scale="SD 1.5 .06"),
)
ROW_NAMES = (*(bar.name for bar in BARS), TURBO)  # every row of the table, turbo's last
#: Turbo may lie so much below the same row at the full number of steps, and must reach these rows' own bars besides.
TURBO_LOSS = {"CPU": 0.03, "GPU": 0.03, "stretch": 0.01}


def find_bar(name: str) -> Bar:
    """The bar of that name. Raises ValueError, with the names there are, for any other."""
    for bar in BARS:
        if bar.name == name:
            return bar
    raise ValueError(f"no row is named {name!r}; there are: {', '.join(bar.name for bar in BARS)}")


def row_tier(row: dict) -> str:
    """The highest tier that the row reaches, see `Bar`. One that asks nothing is reached by any row."""
    bar, reached = find_bar(row["name"]), BELOW
    for tier, value in zip(TIERS, bar.values, strict=True):
        if value is not None and not _reaches(row, bar, value):
            break
        reached = tier
    return reached


def _reaches(row: dict, bar: Bar, value: float) -> bool:
    if bar.unit == "dB":
        return row["low"] >= value
    return row["rate"] >= value and row["low"] >= value - MARGIN - 1e-9


def verdict(row: dict) -> str:
    """A row's tier for people: "target .85" where the only tier that it reaches asks nothing of it."""
    bar, reached = find_bar(row["name"]), row_tier(row)
    asks_nothing = reached != BELOW and bar.values[TIERS.index(reached)] is None
    return target_words(bar) if asks_nothing else reached


def target_words(bar: Bar) -> str:
    return f"target {bar.target:.2f}".replace("0.", ".")


def lowest(tiers: Sequence[str]) -> str:
    return min(tiers, key=(BELOW, *TIERS).index)


def tier_of(rows: Sequence[dict], splits: Sequence[str] = SPLITS) -> str | None:
    """The tier of a model: the lowest of its rows', over the given splits; of turbo's rows where there are any.

    None while a row of the table has not been measured, or no claim can be made of it (its "doubts" say why), unless another is
    below the tiers anyway. The autoencoder's rows have one split only, and count for each.
    """
    decibels = {bar.name for bar in BARS if bar.unit == "dB"}
    sure = [row for row in rows if not row.get("doubts")]
    counted = [row for row in sure if row["split"] in splits or row["name"] in decibels]
    if not counted:
        return None
    reached = lowest([row["tier"] if row["name"] == TURBO else row_tier(row) for row in counted])
    measured = {(row["name"], row["split"]) for row in counted}
    needed = {(bar.name, split) for bar in BARS for split in (("held out",) if bar.unit == "dB" else splits)}
    complete = needed <= measured
    return reached if complete or reached == BELOW else None


def turbo_tier(fast: Sequence[dict], slow: Sequence[dict]) -> tuple[str, float]:
    """(tier, largest loss of a row in 0..1) of the turbo model's rows `fast` against the same rows at full steps."""
    rates = {(row["name"], row["split"]): row["rate"] for row in slow}
    loss = max(rates[row["name"], row["split"]] - row["rate"] for row in fast)
    bound = lowest([row_tier(row) for row in fast])
    allowed = [BELOW, *(tier for tier in TIERS if loss <= TURBO_LOSS[tier] + 1e-9)]
    return lowest([bound, allowed[-1]]), round(loss, 4)
