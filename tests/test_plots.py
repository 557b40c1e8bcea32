"""Plots draw what they are given, on the axes they are given, and touch no global state."""

from __future__ import annotations

import io
import subprocess
import sys
import threading

import matplotlib.style
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sdwidgets import plots

RNG = np.random.default_rng(0)
LATENTS = RNG.normal(size=(4, 8, 6)).astype(np.float32)
PICTURES = RNG.integers(0, 255, (5, 16, 12, 3), np.uint8)
DRAWINGS = {
    "channels": lambda ax=None: plots.channels(LATENTS, ax),
    "contact_sheet": lambda ax=None: plots.contact_sheet(PICTURES, ax, labels=list("abcde"), columns=2),
    "norms": lambda ax=None: plots.norms({"x": RNG.normal(size=(7, 1, 4, 8, 6))}, ax),
    "schedule": lambda ax=None: plots.schedule(np.linspace(0.1, 1, 7), np.linspace(9, 0, 7), ax),
    "by_timestep": lambda ax=None: plots.by_timestep(
        np.arange(3), {"a": [1, 2, 3], "b": [3, 2, 1]}, "loss", ax, look=("o", "-")
    ),
    "against_steps": lambda ax=None: plots.against_steps([1, 2], {"a": [[1.0, 2.0], [0.5, 0.7]]}, "distance", ax),
    "noise_levels": lambda ax=None: plots.noise_levels(
        {"even": np.array([-np.inf, 0, 9]), "other": np.array([-9, 3])}, ax
    ),
    "arrows": lambda ax=None: plots.arrows(
        RNG.normal(size=(9, 2)), RNG.normal(size=(9, 2)), RNG.normal(size=(5, 2)), ax
    ),
    "paths": lambda ax=None: plots.paths(RNG.normal(size=(3, 9, 2)), RNG.normal(size=(5, 2)), ax),
    "halves": lambda ax=None: plots.halves(LATENTS, LATENTS[::-1], ax),
    "shares": lambda ax=None: plots.shares({"one": {"a": 1, "b": 3}, "two": {"b": 2}}, "percent", ax),
    "bars": lambda ax=None: plots.bars([("a", 1.0), ("a", 2.0)], "distance", ax),
    "similarity": lambda ax=None: plots.similarity(np.eye(3), ["a", "b", "c"], "cosine", ax),
    "block_shapes": lambda ax=None: plots.block_shapes({"in": (4, 8, 8), "middle": (8, 4, 4), "out": (4, 8, 8)}, ax),
    "word_maps": lambda ax=None: plots.word_maps(
        {"a": LATENTS[0, :4, :3] ** 2, "b": LATENTS[1, :4, :3] ** 2}, PICTURES[0], ax
    ),
    "stacked": lambda ax=None: plots.stacked({"a": np.full(7, 40.0), "b": np.full(7, 60.0)}, "%", ax),
    "ranking": lambda ax=None: plots.ranking({"a": 1.0, "b": 0.5}, "distance", ax),
    "curve": lambda ax=None: plots.curve({"1": (0.2, 3.0), "2": (0.3, 1.0)}, "x", "y", ax),
    "histogram": lambda ax=None: plots.histogram(LATENTS, ax),
}


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


@pytest.mark.parametrize("name", DRAWINGS)
def test_draws_on_the_given_axes_and_on_its_own(name):
    before = dict(matplotlib.rcParams)
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert DRAWINGS[name](left) is left and left.has_data() and not right.has_data()
    own = DRAWINGS[name]()
    assert own.figure is not figure and own.has_data()
    drawn, empty = png(own.figure), png(Figure(figsize=own.figure.get_size_inches()))
    assert drawn != empty
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", DRAWINGS)
def test_letters_can_be_read_from_the_back_row(name):
    ax = DRAWINGS[name]()
    ax.figure.canvas.draw()
    texts = [t for axes in ax.figure.axes for t in axes.findobj(matplotlib.text.Text) if t.get_text().strip()]
    texts = [t for t in texts if t.get_visible()]
    assert texts or name == "contact_sheet"
    assert all(t.get_fontsize() >= 12 for t in texts), [(t.get_text(), t.get_fontsize()) for t in texts]


def test_no_pyplot():
    code = "import sys, sdwidgets.plots as p; p.histogram([0.0, 1.0]); assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads_draw_what_one_thread_draws():
    alone = {name: png(plots.channels(LATENTS * i).figure) for i, name in enumerate("abc", 1)}
    drawn = {}

    def draw(i, name):
        drawn[name] = png(plots.channels(LATENTS * i).figure)

    threads = [threading.Thread(target=draw, args=(i, name)) for i, name in enumerate("abc", 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drawn == alone and len(set(alone.values())) == 3


def test_style_is_found_by_its_name():
    with matplotlib.style.context("sdwidgets.sdwidgets"):
        assert matplotlib.rcParams["font.size"] == 14
        assert matplotlib.rcParams["axes.prop_cycle"].by_key()["color"] == plots.COLORS


def luminance(color: str) -> float:
    rgb = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_first_colours_stand_out_from_white():
    """WCAG 2.1, 1.4.11: at least 3:1 for lines that carry meaning."""
    assert all(1.05 / (luminance(color) + 0.05) >= 3 for color in plots.COLORS[:3])


def test_channels_share_one_symmetric_scale():
    ax = plots.channels(np.stack([np.full((2, 2), -3.0), np.full((2, 2), 1.0)]))
    image = ax.get_images()[0]
    assert image.get_clim() == (-3, 3) and image.get_interpolation() == "nearest"
    values = image.get_array().compressed()
    assert sorted(set(values[np.isfinite(values)])) == [-3, 1]
    assert plots.channels(LATENTS, limit=5).get_images()[0].get_clim() == (-5, 5)
    assert plots.channels(np.zeros((4, 2, 2))).get_images()[0].get_clim() == (-1, 1)


def test_contact_sheet_holds_every_picture_under_its_label():
    ax = plots.contact_sheet(PICTURES, labels=list("abcde"), columns=2)
    sheet = np.asarray(ax.get_images()[0].get_array())
    for picture, text in zip(PICTURES, ax.texts, strict=True):
        x, y = (round(v + 0.5) for v in text.get_position())
        np.testing.assert_array_equal(sheet[y : y + 16, x : x + 12], picture)
    assert [t.get_text() for t in ax.texts] == list("abcde")


def test_pictures_are_enlarged_smoothly_within_an_edge():
    """Of one white picture two rows of pixels are grey, at its top and at its foot; a lone black pixel has no hard corners."""
    white = np.full((1, 16, 16, 3), 255, np.uint8)
    white[0, 8, 8] = 0
    ax = plots.contact_sheet(white)
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., 0]
    assert (drawn[[0, -1]] < 250).all() and (drawn[5:20, 5:-5] == 255).all()
    assert len(np.unique(drawn[20:-20, 20:-20])) > 50


def test_preview_strip_is_one_row():
    sheet = np.asarray(plots.contact_sheet(PICTURES, columns=len(PICTURES)).get_images()[0].get_array())
    assert sheet.shape[1] >= 5 * 12 and sheet.shape[0] < 2 * 16


@pytest.mark.parametrize("labels", [(), list("abcde")])
@pytest.mark.parametrize("columns", [1, 2, 4, 8])
def test_a_contact_sheet_has_no_blank_band(columns, labels):
    """The figure has the sheet's shape, and above a row is room for one line of text at most."""
    dark = np.zeros((5, 128, 128, 3), np.uint8)
    ax = plots.contact_sheet(dark, labels=labels, columns=columns)
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    width, height = ax.figure.get_size_inches()
    tiles = np.asarray(ax.get_images()[0].get_array())
    assert width <= 8.5 and height / width == pytest.approx(tiles.shape[0] / tiles.shape[1])
    drawn = np.asarray(canvas.buffer_rgba())[..., 0]
    band = np.argmax((drawn < 128).mean(1) > 0.5 / columns) / ax.figure.dpi  # inches above the first picture
    assert band <= (0.3 if labels else 0.02), band
    if labels:  # and the letters stand above the picture, inside the figure
        box = ax.texts[0].get_window_extent()
        assert box.y1 <= drawn.shape[0] and box.y0 >= drawn.shape[0] - 0.3 * ax.figure.dpi


def test_norms_are_root_mean_squares():
    ax = plots.norms({"twos": np.full((3, 1, 4, 2, 2), -2.0), "ones": np.ones((3, 5))})
    assert [list(line.get_ydata()) for line in ax.get_lines()] == [[2, 2, 2], [1, 1, 1]]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["twos", "ones"]


def test_schedule_of_diffusion_and_of_flow():
    sigmas = np.array([np.inf, 1.0, 0.0])
    ax = plots.schedule(1 / np.sqrt(1 + sigmas**2), sigmas)
    np.testing.assert_allclose([line.get_ydata() for line in ax.get_lines()], [[0, 0.5**0.5, 1], [1, 0.5**0.5, 0]])
    decibels = ax.figure.axes[1].get_lines()[0].get_ydata()
    np.testing.assert_allclose(decibels, [np.nan, 0, np.nan], atol=1e-9)
    ax = plots.schedule([0, 0.75, 1], [1, 0.25, 0], flow=True)
    np.testing.assert_allclose(ax.get_lines()[1].get_ydata(), [1, 0.25, 0])
    np.testing.assert_allclose(ax.figure.axes[1].get_lines()[0].get_ydata()[1], 20 * np.log10(3))


def test_halves_are_a_length_over_channels():
    ax = plots.halves(np.zeros((2, 3, 3)), np.stack([np.full((3, 3), 3.0), np.full((3, 3), 4.0)]))
    np.testing.assert_array_equal(np.asarray(ax.get_images()[0].get_array()), np.full((3, 3), 5.0))


def test_histogram_is_a_density():
    ax = plots.histogram(np.array([[0.0, 1.0], [np.nan, 9.0]]))
    area = sum(bar.get_width() * bar.get_height() for bar in ax.patches)
    assert area == pytest.approx(1) and ax.get_xlim()[1] >= 9


def test_bad_shapes_are_told():
    with pytest.raises(ValueError, match=r"expected latents \(channels, h, w\), got shape \(1, 4, 8, 6\); pick one"):
        plots.channels(LATENTS[None])
    with pytest.raises(ValueError, match="pictures"):
        plots.contact_sheet(PICTURES[:0])
    with pytest.raises(ValueError, match="2 labels for 5 pictures"):
        plots.contact_sheet(PICTURES, labels=["a", "b"])
    with pytest.raises(ValueError, match="no finite value"):
        plots.histogram([])


def test_contact_sheet_reads_from_the_first_picture_on():
    """The first picture stands at the upper left, the next one to its right."""
    levels = (10, 90, 170, 250)
    pictures = np.stack([np.full((4, 4, 3), level, np.uint8) for level in levels])
    (image,) = plots.contact_sheet(pictures, columns=2).get_images()
    drawn = np.asarray(image.get_array())
    high, wide = drawn.shape[0], drawn.shape[1]
    corners = [drawn[y, x, 0] for y in (0, high - 1) for x in (0, wide - 1)]
    assert [int(level) for level in corners] == list(levels)


def test_over_timesteps_each_name_keeps_its_colour_and_log_is_log():
    ax = plots.by_timestep(np.arange(3), {"a": [1, 2, 3], "b": [3, 2, 1]}, "loss", look="o", log=True)
    plots.by_timestep(np.arange(3), {"_a": [1, 2, 3]}, "loss", ax, look="--")
    first, second, dashed = ax.get_lines()
    assert first.get_color() == dashed.get_color() != second.get_color() and dashed.get_linestyle() == "--"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert first.get_fillstyle() == "none" and ax.get_yscale() == "linear"  # as the second call has it


def test_against_steps_shows_geometric_means_with_their_intervals():
    each = np.array([[1.0, 4.0, 2.0], [0.5, 0.5, 0.5]])
    ax = plots.against_steps([2, 8], {"a": each}, "distance")
    (line, _, (bars,)) = ax.containers[0]
    assert np.allclose(line.get_ydata(), [2, 0.5]) and ax.get_yscale() == ax.get_xscale() == "log"
    low, high = bars.get_segments()[0][:, 1]
    assert low < 1 and high > 4  # three values, t = 4.3
    assert np.isclose(low * high, 4)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["2", "8"]


def test_pure_noise_is_drawn_at_the_left_edge():
    ax = plots.noise_levels({"even": np.array([-np.inf, 0, 9])}, lowest=-20)
    assert ax.get_lines()[0].get_xdata().tolist() == [-20, 0, 9]


def test_arrows_have_one_length_and_a_place_without_direction_draws_none():
    ax = plots.arrows(np.zeros((2, 2)), np.array([[3.0, 4.0], [0.0, 0.0]]), np.ones((1, 2)))
    quiver = ax.collections[0]
    assert np.allclose(np.hypot(quiver.U, quiver.V), [1, 0])


def test_shares_of_a_row_fill_its_bar():
    ax = plots.shares({"one": {"a": 1, "b": 3}, "two": {"b": 2, "a": 2}}, "percent")
    assert [bar.get_width() for bar in ax.patches] == [25, 75, 50, 50]
    one, two = ax.patches[0], ax.patches[3]
    assert one.get_facecolor() == two.get_facecolor()


def test_word_maps_need_a_picture_that_they_divide():
    with pytest.raises(ValueError, match="do not divide"):
        plots.word_maps({"a": np.ones((5, 5))}, PICTURES[0])


def test_bars_stand_in_the_order_of_their_names():
    ax = plots.ranking({"first": 1.0, "second": 2.0}, "x")
    assert [patch.get_width() for patch in ax.patches] == [1.0, 2.0] and ax.yaxis_inverted()


def test_a_curve_names_its_points():
    assert [text.get_text() for text in plots.curve({"1": (0, 1), "8": (1, 0)}, "x", "y").texts] == ["1", "8"]
