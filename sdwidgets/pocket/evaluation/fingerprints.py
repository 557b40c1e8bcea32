"""The section on memory: which training pictures of confetti a model gives back, see `memorization`."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ...statistics import share
from ..training.vae import reconstructed
from ..world.datasheet import FINGERPRINTS, Fingerprint
from ..world.scenes import CONFETTI_PIECES, pictures_of
from . import prompt_sets
from .exposures import shown
from .memorization import agreement, own_found, read_confetti, squares_in, threshold, training_prints


def fingerprints(evaluator, extras, pictures: int = 8) -> dict:
    """Does the model give back pictures that it was shown often? `pictures` for each of the 60 captions about confetti.

    Of each: the training print that agrees with it best, found or not by chance's threshold, and whether that is the caption's own.
    """
    prints, owners, _ = training_prints()
    times = shown(extras.training)
    prompted: dict[int | str, list[int]] = {}  # repeats -> captions, once for each picture
    for _ in range(pictures):
        for number, mark in enumerate(FINGERPRINTS):
            prompted.setdefault(_repeats(mark), []).append(number)
    prompted = {repeats: captions[: evaluator.cap(len(captions))] for repeats, captions in prompted.items()}
    comparisons = sum(map(len, prompted.values())) * len(prints)
    by_caption: dict[int, list[dict]] = {}
    for repeats, captions in sorted(prompted.items(), key=lambda item: -1 if item[0] == "fresh" else item[0]):
        turn = {number: iter(range(pictures)) for number in captions}
        scenes = [prompt_sets.fingerprint_scene(number, next(turn[number])) for number in captions]
        drawn = np.concatenate([batch for _, batch in evaluator.pictures(f"confetti, {repeats}", scenes)])
        read = read_confetti(drawn)
        for number, hits, squares in zip(captions, agreement(read, prints), squares_in(read), strict=True):
            best, own = int(hits.max()), int(hits[owners == number].max(initial=-1))
            by_caption.setdefault(number, []).append(
                {
                    "own": own if own >= 0 else None,
                    "best": best,
                    "found": best >= threshold(comparisons, int(squares)),
                    "best is own": own == best,
                    "whose": _repeats(FINGERPRINTS[owners[hits.argmax()]]),
                }
            )
    lines = [_caption_line(n, rows) | {"shown": times.get(f"confetti: {n}")} for n, rows in sorted(by_caption.items())]
    usual = threshold(comparisons)
    return {
        "threshold": usual,
        "squares": CONFETTI_PIECES,
        "note": f"found: more of the {CONFETTI_PIECES} squares of one training print are right in place and colour than chance "
        f"gives once in a hundred evaluations: {usual} where a picture has {CONFETTI_PIECES} squares, more where it has more",
        "read": _readable(evaluator, evaluator.cap(64)),
        "captions": lines,
        "lines": [_repeats_line(repeats, lines) for repeats in (0, "fresh", 1, 10, 100, 1000)],
    }


def _repeats(mark: Fingerprint) -> int | str:
    return "fresh" if mark.repeats is None else mark.repeats


def _mean(rows: list[dict], key: str, unit: float = 1) -> float | None:
    """The mean of what is known, in units; None where nothing is."""
    values = [row[key] for row in rows if row[key] is not None]
    return round(float(np.mean(values)) / unit, 4) if values else None


def _caption_line(number: int, rows: list[dict]) -> dict:
    """One caption: its pictures together. "found of others": repeats of a print that was given back -> in how many pictures."""
    mark = FINGERPRINTS[number]
    return {
        "object": mark.object,
        "background": mark.background,
        "repeats": _repeats(mark),
        "n": len(rows),
        "own": _mean(rows, "own", unit=CONFETTI_PIECES),
        "best": _mean(rows, "best", unit=CONFETTI_PIECES),
        "found": sum(row["found"] for row in rows),
        "found own": sum(row["found"] and row["best is own"] for row in rows),
        "found of others": Counter(str(row["whose"]) for row in rows if row["found"] and not row["best is own"]),
    }


def _repeats_line(repeats: int | str, captions: list[dict]) -> dict:
    """All captions of one number of repeats; a caption counts as found where one of its pictures is a training print.

    "own found" asks for the caption's own print: the only one whose repeats are the line's.
    """
    rows = [row for row in captions if row["repeats"] == repeats]
    return {
        "repeats": repeats,
        "captions found": share([row["found"] > 0 for row in rows]),
        "pictures found": share([i < row["found"] for row in rows for i in range(row["n"])]),
        "own found": own_found(captions, repeats),
        "own": _mean(rows, "own"),
        "best": _mean(rows, "best"),
    }


def _readable(evaluator, count: int) -> float:
    """The share of a true print's squares that are read after the autoencoder, over `count` prints: the most to be found."""
    prints, _, known = training_prints()
    some = np.linspace(0, len(known) - 1, count).astype(int)
    pictures = reconstructed(evaluator.pipe.vae, pictures_of(known[number] for number in some))
    return round(float(np.mean(np.diag(agreement(read_confetti(pictures), prints[some])))) / CONFETTI_PIECES, 4)
