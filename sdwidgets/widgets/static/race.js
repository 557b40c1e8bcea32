// The scheduler race: class SchedulerRace, on what common.js and curves.js give. Recorded runs under one slider.

const BY = { share: "Share of the way", calls: "Calls of the network" };
const SHOWN = { x0: "Predicted pictures", xt: "Current latents" };

/** Two to five round numbers between two positive ones, for a logarithmic axis; the ends where there are none. */
function roundNumbers(low, high) {
  const powers = Array.from({ length: 12 }, (_, i) => 10 ** (i - 8));
  const within = (digits) => powers.flatMap((power) => digits.map((n) => n * power)).filter((v) => v >= low && v <= high);
  return [[1, 2, 5], [1, 3], [1]].map(within).find((ticks) => ticks.length >= 2 && ticks.length <= 5) ?? [low, high];
}

class SchedulerRace {
  constructor() {
    this.id = Math.random().toString(36).slice(2, 8);
    this.state = { at: 1, by: "share", show: "x0" };
    this.changed = null;
    this.heading = h("header", { class: "heading" });
    this.switches = {
      show: h("div", { class: "views", role: "radiogroup", "aria-label": "What is shown of each run" }),
      by: h("div", { class: "views", role: "radiogroup", "aria-label": "What the slider counts" }),
    };
    this.lanes = h("div", { class: "lanes" });
    this.curve = s("svg", { role: "img" });
    this.curveFigure = h("figure", { class: "gap" }, this.curve, h("figcaption", {}, h("b", {}, "How far from the converged picture: "),
      "root mean square over the numbers of the predicted latents; it may settle elsewhere"));
    this.player = new Player({
      label: "How far the runs are", range: { max: 1, step: 0.01 }, pause: 120,
      begin: () => { if (this.state.at >= 1) this.choose({ at: 0 }); },
      next: () => { this.set({ at: Math.min(1, this.state.at + 1 / (2 * this.most)) }); return this.state.at < 1; },
      moved: (at) => this.choose({ at }),
      ended: () => this.changed?.({ at: this.state.at }),
      alive: () => this.card.isConnected,
    });
    this.badge = h("span", { class: "badge" });
    this.card = h("section", { class: "card", "aria-label": "Race of schedulers" }, this.heading,
      h("div", { class: "race" }, h("div", { class: "switches" }, ...Object.values(this.switches)), this.lanes, this.curveFigure),
      this.player.bar, h("footer", {}, this.badge));
    this.watcher = new ResizeObserver(() => requestAnimationFrame(() => this.draw()));
    this.watcher.observe(this.curve);
  }

  open(data) {
    this.data = data;
    this.most = Math.max(...data.runs.map((run) => run.frames.length - 1));
    const distances = data.runs.flatMap((run) => run.distances ?? []);
    this.top = 1.1 * Math.max(1e-5, ...distances);
    this.floor = 0.9 * Math.max(Math.min(...distances), this.top / 1000); // a distance of 0 has no logarithm
    this.heading.replaceChildren(h("h2", { dir: "auto" }, data.prompt || "(no prompt)"), h("p", {}, data.line));
    this.badge.textContent = data.badge;
    for (const [key, labels] of [["show", SHOWN], ["by", BY]]) {
      this.switches[key].replaceChildren(...Object.entries(labels).map(([value, label]) => h("label", {},
        h("input", { type: "radio", name: `${key}-${this.id}`, value, change: () => this.choose({ [key]: value }) }), h("span", {}, label))));
    }
    this.curveFigure.hidden = !data.reference && !data.runs[0].distances;
    this.cards = data.runs.map((run, i) => this.lane(run, i));
    this.lanes.style.setProperty("--across", data.runs.length + (data.reference ? 1 : 0));
    this.lanes.replaceChildren(...this.cards.map((card) => card.figure));
    if (data.reference) {
      const canvas = this.canvas("The converged picture", "smooth");
      decodePicture(data.reference).then((bitmap) => { paintBitmap(canvas, bitmap); bitmap.close(); });
      this.lanes.append(h("figure", {}, canvas, h("figcaption", {}, h("b", {}, "Converged"), h("small", {}, "the picture that the distances are measured to"))));
    }
    this.draw();
  }

  canvas(label, kind) {
    const canvas = h("canvas", { role: "img", class: kind, "aria-label": label });
    canvas.style.aspectRatio = this.data.aspect;
    return canvas;
  }

  lane(run, i) {
    const canvas = this.canvas(run.label, "smooth");
    const position = h("small");
    const caption = h("figcaption", {}, h("b", {}, h("i", { style: `background: ${LINES[i]}` }), run.label), position, h("small", { class: "hint" }, run.sentence));
    const card = { run, canvas, position, bitmap: null, previews: [], figure: h("figure", {}, canvas, caption) };
    const decoded = (bytes, keep) => decodePicture(bytes).then((bitmap) => { keep(bitmap); this.draw(); });
    if (run.picture) decoded(run.picture, (bitmap) => { card.bitmap = bitmap; });
    run.frames.forEach((frame, k) => { if (frame.picture) decoded(frame.picture, (bitmap) => { card.previews[k] = bitmap; }); });
    return card;
  }

  set(state) {
    this.state = { ...this.state, ...state };
    this.draw();
  }

  choose(state) {
    this.set(state);
    this.changed?.(state);
  }

  /** The frame of a run to show: frames[k] is its call k + 1, and the last one, after all calls, is the finished picture. */
  frameOf(run) {
    const calls = run.frames.length - 1;
    const wanted = this.state.by === "share" ? this.state.at * calls : this.state.at * this.most;
    return Math.min(calls, Math.floor(wanted + 1e-6));
  }

  /** Where a distance stands on the axis: all shrink together, and their differences at the end would be flat. */
  log(distance) { return Math.log10(Math.max(distance, this.floor)); }

  draw() {
    if (!this.data || !this.card.isConnected) return;
    const { at, by, show } = this.state;
    for (const key of ["show", "by"]) for (const input of this.switches[key].querySelectorAll("input")) input.checked = input.value === this.state[key];
    this.player.range.step = by === "calls" ? 1 / this.most : 0.01;
    const dots = this.cards.map((card) => {
      const { run, canvas } = card;
      const [k, calls] = [this.frameOf(run), run.frames.length - 1];
      const frame = run.frames[k];
      const finished = k === calls;
      const bitmap = show === "x0" && (finished ? card.bitmap : card.previews[k]);
      if (bitmap) paintBitmap(canvas, bitmap);
      else paintLinear(canvas, frame[show], this.data.factors);
      canvas.classList.toggle("hard", show === "xt");
      const where = finished ? `finished, ${calls} calls` : `call ${k + 1} of ${calls}, t = ${tidy(frame.t, 0)}`;
      const apart = run.distances ? ` · distance ${run.distances[k].toFixed(2)}` : "";
      card.position.textContent = where + apart;
      canvas.setAttribute("aria-label", `${run.label}: ${where}${apart}`);
      return [by === "share" ? k / calls : k, run.distances && this.log(run.distances[k])];
    });
    const call = Math.floor(at * this.most + 1e-6) + 1;
    const status = at >= 1 ? "all have finished" : by === "share" ? `${Math.round(100 * at)} % of the way` : `call ${call} of ${this.most}`;
    this.player.show(at, at, status);
    if (!this.data.runs[0].distances) return;
    const last = by === "share" ? 1 : this.most;
    drawCurves(this.curve, {
      x: [0, last], y: [this.log(0), this.log(this.top)], now: at * last, yLabel: "distance, logarithmic", xLabel: by === "share" ? "share of the way, %" : "call of the network",
      xTicks: by === "share" ? [[0, "0"], [0.5, "50"], [1, "100"]] : [[0, "first"], [last, "end"]],
      yTicks: roundNumbers(this.floor, this.top).map((v) => [this.log(v), tidy(v, 4)]),
      label: `Distance to the converged picture, ${status}`,
      lines: this.data.runs.map((run, i) => ({
        colour: LINES[i], strong: true, dot: dots[i], points: run.distances.map((v, k) => [by === "share" ? k / (run.frames.length - 1) : k, this.log(v)]),
      })),
    });
  }

  close() {
    this.player.pause();
    this.watcher.disconnect();
    for (const card of this.cards ?? []) for (const bitmap of [card.bitmap, ...card.previews]) bitmap?.close?.();
  }
}
