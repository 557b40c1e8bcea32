"""What Pocket must reach: one table, and the tier that a set of measured rows has reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BELOW = "below"
TIERS = ("CPU", "GPU", "stretch")  # each demands more than the one before
SPLITS = ("seen", "held out")


@dataclass(frozen=True)
class Bar:
    """A row of the table. `values` are what the row's lower bound must reach for each of `TIERS`; None: it is only told."""

    name: str
    values: tuple[float | None, float, float]
    unit: str = "rate"  # "rate" in 0..1, or "dB"
    scale: str = ""  # what others reach on their own tests, for scale


GLYPHS, WHOLE = (
    "VAE reconstruction, PSNR over glyph pixels only",
    "VAE reconstruction, PSNR over the whole picture",
)
TURBO = "4-step turbo"

BARS: tuple[Bar, ...] = (
    Bar(GLYPHS, (22, 25, 28), "dB"),
    Bar(WHOLE, (27, 30, 33), "dB", "SD's KL-f8 24.2"),
    Bar("one object", (0.95, 0.98, 0.995), scale="SD 1.5 .97"),
    Bar("background and shape colour", (0.97, 0.98, 0.99), scale="SD 1.5 .76"),
    Bar("two objects", (0.85, 0.93, 0.98), scale="SD 1.5 .38, SDXL .74"),
    Bar("relation", (None, 0.85, 0.95), scale="SD 1.5 .04"),
    Bar("count to four", (None, 0.85, 0.95), scale="SD 1.5 .35"),
    Bar("colour bound to the right shape", (0.80, 0.90, 0.97), scale="SD 1.5 .06"),
)
#: Turbo may lie so much below the same row at the full number of steps, and must reach these rows' own bars besides.
TURBO_LOSS = {"CPU": 0.03, "GPU": 0.03, "stretch": 0.01}


def find_bar(name: str) -> Bar:
    """The bar of that name. Raises ValueError, with the names there are, for any other."""
    for bar in BARS:
        if bar.name == name:
            return bar
    raise ValueError(f"no row is named {name!r}; there are: {', '.join(bar.name for bar in BARS)}")


def row_tier(row: dict) -> str:
    """The highest tier whose bar the row's lower bound reaches. A tier that is only told is reached by any row."""
    reached = BELOW
    for tier, value in zip(TIERS, find_bar(row["name"]).values, strict=True):
        if value is not None and row["low"] < value:
            break
        reached = tier
    return reached


def verdict(row: dict) -> str:
    """A row's tier for people: "told" where the only tier that it reaches asks nothing of it."""
    reached = row_tier(row)
    asks_nothing = reached != BELOW and find_bar(row["name"]).values[TIERS.index(reached)] is None
    return "told" if asks_nothing else reached


def lowest(tiers: Sequence[str]) -> str:
    order = (BELOW, *TIERS)
    return min(tiers, key=order.index)


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
    complete = decibels <= {name for name, _ in measured} and all(
        (bar.name, split) in measured for bar in BARS if bar.unit != "dB" for split in splits
    )
    return reached if complete or reached == BELOW else None


def turbo_tier(fast: Sequence[dict], slow: Sequence[dict]) -> tuple[str, float]:
    """(tier, largest loss of a row in 0..1) of the turbo model's rows `fast` against the same rows at full steps."""
    rates = {(row["name"], row["split"]): row["rate"] for row in slow}
    loss = max(rates[row["name"], row["split"]] - row["rate"] for row in fast)
    bound = lowest([row_tier(row) for row in fast])
    allowed = [BELOW, *(tier for tier in TIERS if loss <= TURBO_LOSS[tier] + 1e-9)]
    return lowest([bound, allowed[-1]]), round(loss, 4)
