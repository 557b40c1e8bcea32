// The guidance explorer: class GuidanceExplorer, on what common.js gives. Two sliders, scale and step; the two predictions and the
// guided one as pictures, and as arrows in the plane that they span; the finished picture of every scale.

class GuidanceExplorer {
  constructor() {
    this.id = Math.random().toString(36).slice(2, 8);
    this.at = { scale: 0, step: 0 }; // indices
    this.bitmaps = new Map(); // bytes -> promise of a bitmap
    this.changed = null;

    const figure = (name) => {
      const canvas = h("canvas", { role: "img", class: "smooth" });
      const caption = h("figcaption");
      return { canvas, caption, figure: h("figure", { class: name }, canvas, caption) };
    };
    this.pictures = { guided: figure("predicted-guided"), uncond: figure("predicted-uncond"), cond: figure("predicted-cond") };
    this.svg = s("svg", { role: "img" });
    this.arrows = h("figcaption", { "aria-live": "polite" });
    this.scale = this.slider("Guidance scale", () => this.choose({ scale: Number(this.scale.input.value) }));
    this.step = this.slider("Step", () => this.choose({ step: Number(this.step.input.value) }));
    this.heading = h("header", { class: "heading" });
    this.warning = h("p", { class: "note", role: "status", hidden: true });
    this.row = h("div", { class: "finished", role: "group", "aria-label": "The finished picture at every scale" });
    this.badge = h("span", { class: "badge" });
    this.card = h("section", { class: "card guidance", "aria-label": "Guidance explorer" },
      this.heading,
      h("div", { class: "knobs two" }, this.scale.knob, this.step.knob),
      this.warning,
      h("div", { class: "guided-stage" },
        this.pictures.guided.figure, this.pictures.uncond.figure, this.pictures.cond.figure,
        h("figure", { class: "arrows" }, this.svg, this.arrows)),
      h("p", { class: "finished-title" }, h("b", {}, "The finished picture at each scale: "), "same prompt, same noise; choose one"),
      this.row,
      h("footer", {}, this.badge));
    this.watcher = new ResizeObserver(() => requestAnimationFrame(() => this.run && this.draw()));
    this.watcher.observe(this.svg);
  }

  slider(label, moved) {
    const id = `${label.split(" ")[0].toLowerCase()}-${this.id}`;
    const input = h("input", { type: "range", id, min: 0, step: 1, value: 0, input: moved });
    const value = h("output", { for: id, class: "reading" });
    const knob = h("div", { class: "knob" }, h("div", { class: "top" }, h("label", { for: id }, label), value), input);
    return { input, value, knob };
  }

  open(data) {
    this.data = data;
    this.scale.input.max = data.runs.length - 1;
    this.step.input.max = data.runs[0].steps.length - 1;
    this.heading.replaceChildren(h("h2", { dir: "auto" }, data.prompt || "(no prompt)"), h("p", {}, data.line));
    this.badge.textContent = data.badge;
    for (const { canvas } of Object.values(this.pictures)) canvas.style.aspectRatio = data.aspect;
    this.row.replaceChildren(...data.runs.map((run, index) => {
      const canvas = h("canvas", { class: "smooth", width: 1, height: 1 });
      canvas.style.aspectRatio = data.aspect;
      this.paint(canvas, run.finished, () => true);
      return h("button", { type: "button", "aria-label": `guidance ${tidy(run.scale, 2)}`, click: () => this.choose({ scale: index }) },
        canvas, h("span", {}, tidy(run.scale, 2)));
    }));
    this.show();
  }

  /** Any part of {scale, step}: a scale that was recorded, a step from 0. */
  set(state) {
    if (state?.scale !== undefined && state.scale !== null) {
      const index = this.data.runs.findIndex((run) => run.scale === state.scale);
      if (index >= 0) this.at.scale = index;
    }
    if (state?.step !== undefined) this.at.step = clamp(state.step, 0, this.data.runs[0].steps.length - 1);
    this.show();
  }

  choose(part) {
    this.at = { ...this.at, ...part };
    this.show();
    this.changed?.({ scale: this.run.scale, step: this.at.step });
  }

  get run() { return this.data?.runs[this.at.scale]; }
  get now() { return this.run.steps[this.at.step]; }

  show() {
    const { run, now } = this;
    const total = run.steps.length;
    const scale = tidy(run.scale, 2);
    this.scale.input.value = this.at.scale;
    this.step.input.value = this.at.step;
    this.scale.value.textContent = scale;
    this.step.value.textContent = `${this.at.step + 1} of ${total}, t = ${tidy(now.t, 0)}`;
    this.scale.input.setAttribute("aria-valuetext", `guidance ${scale}`);
    this.step.input.setAttribute("aria-valuetext", `step ${this.at.step + 1} of ${total}`);
    this.scale.input.style.setProperty("--done", `${(100 * this.at.scale) / Math.max(1, this.data.runs.length - 1)}%`);
    this.step.input.style.setProperty("--done", `${(100 * this.at.step) / Math.max(1, total - 1)}%`);
    this.warning.hidden = !run.note;
    this.warning.textContent = run.note ?? "";
    this.caption("guided", now.plane ? "Guided: " : "The only prediction: ", now.plane ? `what the scheduler gets, at guidance ${scale}` : "without guidance there is no second one");
    this.caption("uncond", this.data.negative ? "Negative prompt: " : "No prompt: ", "predicted without your words");
    this.caption("cond", "Prompt: ", "predicted with them");
    this.card.classList.toggle("alone", !now.plane);
    for (const [name, { canvas }] of Object.entries(this.pictures)) {
      canvas.setAttribute("aria-label", `Predicted picture, ${{ guided: "guided", uncond: "without the prompt", cond: "with the prompt" }[name]}, step ${this.at.step + 1}`);
      const shown = now[name];
      if (shown === undefined) paintPixels(canvas, 1, 1, () => [128, 128, 128]);
      else if (shown instanceof Uint8Array) this.paint(canvas, shown, () => this.now[name] === shown);
      else {
        canvas.className = "hard";
        paintLinear(canvas, shown, this.data.factors);
      }
    }
    [...this.row.children].forEach((button, index) => button.setAttribute("aria-pressed", String(index === this.at.scale)));
    this.draw();
  }

  caption(name, title, words) { this.pictures[name].caption.replaceChildren(h("b", {}, title), words); }

  /** A picture of bytes, decoded once; it is painted if by then it is still wanted. */
  async paint(canvas, bytes, wanted) {
    if (!this.bitmaps.has(bytes)) this.bitmaps.set(bytes, decodePicture(bytes));
    const bitmap = await this.bitmaps.get(bytes);
    if (!wanted()) return;
    canvas.className = "smooth";
    paintBitmap(canvas, bitmap);
  }

  // -- the arrows

  /** The plane through both predictions and the origin, on equal axes; the guided one lies on the line through their ends. */
  draw() {
    const { clientWidth: width, clientHeight: height } = this.svg;
    const { plane, length } = this.now;
    this.tell(plane, length);
    if (!width || !height) return;
    const points = plane ?? { guided: [length, 0] };
    const ends = [[0, 0], ...["uncond", "cond", "guided"].flatMap((name) => (points[name] ? [points[name]] : []))];
    const [left, right, top, bottom] = [44, width - 18, 30, height - 42];
    const range = (axis) => {
      const values = ends.map((point) => point[axis]);
      return [Math.min(...values), Math.max(...values)];
    };
    let [x, y] = [range(0), range(1)];
    const unit = Math.max((x[1] - x[0]) / (right - left), (y[1] - y[0]) / (bottom - top), 1e-6) * 1.12; // of length, a pixel
    const middle = ([low, high], room) => [(low + high - room * unit) / 2, (low + high + room * unit) / 2];
    [x, y] = [middle(x, right - left), middle(y, bottom - top)];
    const toPixels = ([a, b]) => [left + (a - x[0]) / unit, bottom - (b - y[0]) / unit];
    const ticks = ([low, high]) => {
      const rough = (high - low) / 5;
      const power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
      const count = Math.floor(high / step) - Math.ceil(low / step) + 1;
      return Array.from({ length: count }, (_, i) => (Math.ceil(low / step) + i) * step);
    };
    const text = (kind, [px, py], words, anchor = "middle") => s("text", { class: kind, x: px, y: py, "text-anchor": anchor }, words);
    const number = (value) => tidy(value, 3).replace("-", "−");
    const marks = [
      ...ticks(x).map((value) => { const [px] = toPixels([value, 0]); return [s("line", { class: "grid", x1: px, x2: px, y1: top, y2: bottom }), text("tick", [px, bottom + 15], number(value))]; }),
      ...ticks(y).map((value) => { const [, py] = toPixels([0, value]); return [s("line", { class: "grid", x1: left, x2: right, y1: py, y2: py }), text("tick", [left - 6, py + 4], number(value), "end")]; }),
    ].flat();
    const arrow = (name) => {
      const [x1, y1] = toPixels([0, 0]);
      const [x2, y2] = toPixels(points[name]);
      const angle = Math.atan2(y2 - y1, x2 - x1);
      const head = [-2.6, 2.6].map((turn) => [x2 + 11 * Math.cos(angle + turn), y2 + 11 * Math.sin(angle + turn)]);
      return [s("line", { class: `arrow ${name}`, x1, y1, x2, y2 }), s("polygon", { class: `head ${name}`, points: [[x2, y2], ...head].map((p) => p.map((v) => v.toFixed(1)).join()).join(" ") })];
    };
    const names = ["uncond", "cond", "guided"].filter((name) => points[name]);
    const line = [];
    if (plane) {
      const [a, b] = [points.uncond, points.cond];
      const along = (w) => [a[0] + w * (b[0] - a[0]), a[1] + w * (b[1] - a[1])];
      const [from, to] = [toPixels(along(0)), toPixels(along(Math.max(1, this.run.scale)))];
      line.push(s("line", { class: "through", x1: from[0], y1: from[1], x2: to[0], y2: to[1] }));
      for (const { scale } of this.data.runs) { // where this step's line would be met at the other scales
        const [px, py] = toPixels(along(scale));
        if (px > left && px < right && py > top && py < bottom) line.push(s("circle", { class: "stop", cx: px, cy: py, r: 3 }));
      }
    }
    const [ox, oy] = toPixels([0, 0]);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("aria-label", this.arrows.textContent);
    this.svg.replaceChildren(...marks, ...line, ...names.flatMap(arrow), s("circle", { class: "origin", cx: ox, cy: oy, r: 4 }),
      text("axis", [(left + right) / 2, height - 8], plane ? "along the prediction without prompt" : "along the only prediction"),
      text("axis", [8, 16], "at a right angle to it, towards the prompt", "start"));
  }

  tell(plane, length) {
    const key = (name, words) => h("span", { class: `key ${name}` }, words);
    const size = ([a, b]) => tidy(Math.hypot(a, b), 2);
    if (!plane) return this.arrows.replaceChildren(h("b", {}, "One arrow: "), `the network ran once; its prediction is ${tidy(length, 2)} long`);
    this.arrows.replaceChildren(
      h("b", {}, "The same as arrows: "), key("uncond", "without"), ` ${size(plane.uncond)} long, `, key("cond", "with"), ` ${size(plane.cond)} long, ${tidy(plane.angle, 1)}° apart; `,
      key("guided", "guided"), ` ${size(plane.guided)} long`,
      plane.outside > 0.01 ? `, and ${tidy(plane.outside, 2)} outside this plane` : ", on the line through both", ". Pure noise would be 1 long.");
  }

  close() {
    this.watcher.disconnect();
    for (const promise of this.bitmaps.values()) promise.then((bitmap) => bitmap.close());
  }
}
