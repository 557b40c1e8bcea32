// For views that compare several runs or schedules: drawCurves, lines over a common axis with the present position marked, and
// Player, the bar with a slider that also moves by itself.

// Okabe and Ito's palette without yellow and black: colour-blind eyes keep them apart, on light and on dark.
const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/**
 * svg: its own size is used. x, y: [first, last] of each axis; ticks: [value, text] pairs. lines: {points: [[x, y]], colour, strong,
 * dot: [x, y] or null}; points outside y are cut off at the frame. now: x of the dashed line, or null.
 */
function drawCurves(svg, { x, y, xTicks, yTicks, xLabel, yLabel, lines, now = null, label }) {
  const { clientWidth: width, clientHeight: height } = svg;
  if (!width || !height) return;
  const type = 11; // pixels; as in look.css
  const [left, right, top, bottom] = [3.4 * type, width - 1.2 * type, 2.6 * type, height - 3.1 * type];
  const across = (v) => left + ((v - x[0]) / (x[1] - x[0])) * (right - left);
  const up = (v) => bottom - ((v - y[0]) / (y[1] - y[0])) * (bottom - top);
  const text = (px, py, label, anchor = "middle") => s("text", { x: px, y: py, "text-anchor": anchor }, label);
  const clip = `clip-${Math.random().toString(36).slice(2, 8)}`;
  const frame = s("g", { "clip-path": `url(#${clip})` });
  for (const line of [...lines].sort((a, b) => a.strong - b.strong)) {
    const points = line.points.map(([px, py]) => `${across(px).toFixed(1)},${up(clamp(py, y[0] - 9 * (y[1] - y[0]), y[1] + 9 * (y[1] - y[0]))).toFixed(1)}`);
    frame.append(s("polyline", { points: points.join(" "), fill: "none", stroke: line.colour, "stroke-width": line.strong ? 3 : 1.75,
      "stroke-linejoin": "round", opacity: line.strong ? 1 : 0.8 }));
  }
  const dots = lines.filter((line) => line.dot && line.dot[1] >= y[0] && line.dot[1] <= y[1]).map((line) =>
    s("circle", { class: "dot", cx: across(line.dot[0]), cy: up(line.dot[1]), r: line.strong ? 5 : 3.5, style: `fill: ${line.colour}` }));
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-label", label);
  svg.replaceChildren(
    s("clipPath", { id: clip }, s("rect", { x: left, y: top - 2, width: right - left, height: bottom - top + 4 })),
    ...yTicks.flatMap(([v, label]) => [s("line", { class: "grid", x1: left, x2: right, y1: up(v), y2: up(v) }), text(left - 6, up(v) + 4, label, "end")]),
    ...xTicks.map(([v, label]) => text(across(v), bottom + 1.3 * type, label)),
    text((left + right) / 2, height - 0.5 * type, xLabel), text(0.7 * type, 1.4 * type, yLabel, "start"),
    frame, ...(now === null ? [] : [s("line", { class: "now", x1: across(now), x2: across(now), y1: top, y2: bottom })]), ...dots);
}

class Player {
  /**
   * label: of the slider. `next()`: moves on by one and returns whether there is more, called every `pause` milliseconds; `moved(value)`:
   * the reader moved the slider; `ended()`: it was stopped. `alive()`: whether it is on the page.
   */
  constructor({ label, range, pause, begin, next, moved, ended, alive }) {
    Object.assign(this, { pauseMs: pause, begin, next, ended, alive });
    this.timer = 0;
    this.button = h("button", { type: "button", class: "play", "aria-pressed": "false", click: () => (this.timer ? this.pause() : this.play()) }, "Play");
    this.range = h("input", { type: "range", min: 0, ...range, "aria-label": label,
      input: () => { this.pause(); moved(Number(this.range.value)); } });
    this.status = h("output", { class: "status", "aria-live": "off" }); // the slider says the same
    this.bar = h("div", { class: "bar" }, this.button, this.range, this.status);
  }

  /** value: of the slider, `done` of 1 in its length; text: what it says. */
  show(value, done, text) {
    this.status.textContent = text;
    this.range.value = value;
    this.range.style.setProperty("--done", `${100 * done}%`);
    this.range.setAttribute("aria-valuetext", text);
  }

  play() {
    this.begin();
    this.timer = setInterval(() => { if (!this.alive() || !this.next()) this.pause(); }, this.pauseMs);
    this.mark();
  }

  pause() {
    if (this.timer) this.ended();
    clearInterval(this.timer);
    this.timer = 0;
    this.mark();
  }

  mark() {
    this.button.textContent = this.timer ? "Pause" : "Play";
    this.button.setAttribute("aria-pressed", String(!!this.timer));
  }
}
