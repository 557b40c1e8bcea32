// The noise explorer: class NoiseExplorer, on what common.js and curves.js give. The mixing of picture and noise happens here.

const FLOOR = 30; // decibels either way that the curve of the ratio shows

class NoiseExplorer {
  constructor() {
    this.id = Math.random().toString(36).slice(2, 8);
    this.state = { t: 400, schedule: "" };
    this.changed = null;
    this.hero = h("canvas", { role: "img", class: "hard" });
    this.heroCaption = h("figcaption");
    this.share = s("svg", { role: "img" });
    this.ratio = s("svg", { role: "img" });
    this.tiles = h("div", { class: "clocks", role: "radiogroup", "aria-label": "The schedule that is shown large" });
    this.player = new Player({
      label: "Time t, from picture to noise", range: { value: 0, step: 1 }, pause: 40,
      begin: () => { if (this.state.t >= this.last) this.choose({ t: 0 }); },
      next: () => { this.set({ t: Math.min(this.last, this.state.t + Math.max(1, this.last / 100)) }); return this.state.t < this.last; },
      moved: (t) => this.choose({ t }),
      ended: () => this.changed?.({ t: Math.round(this.state.t) }),
      alive: () => this.card.isConnected,
    });
    this.sentence = h("span", { class: "badge" });
    this.card = h("section", { class: "card", "aria-label": "Noise explorer" },
      h("div", { class: "noising" },
        h("figure", { class: "lead" }, this.hero, this.heroCaption),
        h("figure", {}, this.share, h("figcaption", {}, h("b", {}, "How much picture is left: "), "its share of the variance, ᾱ")),
        h("figure", {}, this.ratio, h("figcaption", {}, h("b", {}, "Signal to noise: "), "0 dB is as much picture as noise, −20 dB a hundredth"))),
      this.tiles, this.player.bar, h("footer", {}, this.sentence));
    this.watcher = new ResizeObserver(() => requestAnimationFrame(() => this.draw()));
    this.watcher.observe(this.share);
  }

  open(data) {
    this.data = data;
    this.x0 = numbers(data.x0);
    this.noise = numbers(data.noise);
    this.schedules = data.schedules.map(({ label, sentence, kind, signal }, i) => ({
      label, sentence, signal, colour: LINES[i],
      noise: signal.map((a) => (kind === "flow" ? 1 - a : Math.sqrt(Math.max(0, 1 - a * a)))),
    }));
    for (const one of this.schedules) {
      one.share = one.signal.map((a, t) => (a * a) / (a * a + one.noise[t] ** 2));
      one.decibels = one.signal.map((a, t) => 20 * Math.log10(a / one.noise[t]));
    }
    this.player.range.max = this.last;
    this.hero.style.aspectRatio = data.x0.shape[2] / data.x0.shape[1];
    this.buildTiles();
    this.set({ schedule: this.schedules[0].label });
  }

  set(state) {
    this.state = { ...this.state, ...state };
    this.draw();
  }

  choose(state) {
    this.set(state);
    this.changed?.(state);
  }

  get last() { return this.schedules[0].signal.length - 1; }

  get chosen() { return this.schedules.find((one) => one.label === this.state.schedule) ?? this.schedules[0]; }

  buildTiles() {
    const clean = h("canvas", { role: "img", "aria-label": "The picture without noise", class: this.data.picture ? "smooth" : "hard" });
    if (this.data.picture) {
      decodePicture(this.data.picture).then((bitmap) => { paintBitmap(clean, bitmap); bitmap.close(); });
    } else paintLinear(clean, this.data.x0, this.data.factors);
    clean.style.aspectRatio = this.hero.style.aspectRatio;
    this.canvases = this.schedules.map(() => h("canvas", { role: "img", class: "hard" }));
    this.ratios = this.schedules.map(() => h("small"));
    this.radios = this.schedules.map(({ label }) => h("input", { type: "radio", name: `schedule-${this.id}`, value: label, "aria-label": label,
      change: () => this.choose({ schedule: label }) }));
    this.tiles.replaceChildren(h("figure", { class: "clock" }, clean, h("span", {}, "no noise"), h("small", {}, "the picture")),
      ...this.schedules.map(({ label, colour }, i) => {
        this.canvases[i].style.aspectRatio = this.hero.style.aspectRatio;
        return h("label", { class: "clock" }, this.radios[i], this.canvases[i],
          h("span", {}, h("i", { style: `background: ${colour}` }), label), this.ratios[i]);
      }));
  }

  draw() {
    if (!this.data || !this.card.isConnected) return;
    const { chosen, last } = this;
    const t = clamp(Math.round(this.state.t), 0, last);
    this.mix(this.hero, chosen, t);
    this.schedules.forEach((one, i) => {
      this.mix(this.canvases[i], one, t);
      this.canvases[i].setAttribute("aria-label", `${one.label} at t = ${t}`);
      this.ratios[i].textContent = decibels(one.decibels[t]);
      this.radios[i].checked = one === chosen;
    });
    this.hero.setAttribute("aria-label", `Noised latents, ${chosen.label}, t = ${t}`);
    this.heroCaption.replaceChildren(h("b", {}, `At t = ${t}, ${chosen.label}: `),
      `${chosen.signal[t].toFixed(2)} × picture + ${chosen.noise[t].toFixed(2)} × noise`, this.data.grey ? ", in grey" : ", in rough colours");
    this.sentence.textContent = `${chosen.label}: ${chosen.sentence}`;
    const status = `t = ${t} · ${(100 * chosen.share[t]).toFixed(chosen.share[t] < 0.1 ? 1 : 0)} % picture · ${decibels(chosen.decibels[t])}`;
    this.player.show(t, t / last, status);
    const every = Math.max(1, Math.round(last / 150));
    const timesteps = [...chosen.signal.keys()].filter((k) => k % every === 0 || k === last);
    const lines = (values) => this.schedules.map((one) => ({
      colour: one.colour, strong: one === chosen, points: timesteps.map((k) => [k, values(one)[k]]), dot: [t, values(one)[t]],
    }));
    const common = { x: [0, last], xTicks: [[0, "0"], [last / 2, String(Math.round(last / 2))], [last, String(last)]], xLabel: "time t", now: t };
    drawCurves(this.share, { ...common, y: [0, 1], yTicks: [[0, "0"], [0.5, "50"], [1, "100"]], yLabel: "picture, %",
      lines: lines((one) => one.share), label: `Share of the picture against t for ${this.schedules.length} schedules; ${status}` });
    drawCurves(this.ratio, { ...common, y: [-FLOOR, FLOOR], yTicks: [[-20, "−20"], [0, "0"], [20, "20"]], yLabel: "signal to noise, dB",
      lines: lines((one) => one.decibels.map((v) => clamp(v, -999, 999))), label: `Signal to noise against t; ${status}` });
  }

  /** a x0 + b noise in rough colours. */
  mix(canvas, one, t) {
    const [channels, height, width] = this.data.x0.shape;
    const size = height * width;
    const { factors } = this.data;
    const [a, b] = [one.signal[t], one.noise[t]];
    paintPixels(canvas, width, height, (i) => {
      const colour = [...factors[channels]];
      for (let k = 0; k < channels; k++) {
        const x = a * this.x0[k * size + i] + b * this.noise[k * size + i];
        for (let c = 0; c < 3; c++) colour[c] += x * factors[k][c];
      }
      return colour.map((x) => (clamp(x, -1, 1) + 1) * 127.5);
    });
  }

  close() {
    this.player.pause();
    this.watcher.disconnect();
  }
}

function decibels(value) {
  if (value === -Infinity) return "pure noise";
  if (value === Infinity) return "no noise";
  return `${value.toFixed(1).replace("-", "−")} dB`;
}
