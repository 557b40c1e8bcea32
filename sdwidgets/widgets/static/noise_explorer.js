// The noise explorer: class NoiseExplorer, on what common.js and curves.js give. The mixing of picture and noise happens here.

const FLOOR = 30; // decibels either way that the curve of the ratio shows

class NoiseExplorer {
  constructor() {
    this.id = Math.random().toString(36).slice(2, 8);
    this.state = { t: 400, schedule: "" };
    this.changed = null;
    this.timer = 0;
    this.hero = h("canvas", { role: "img", class: "hard" });
    this.heroCaption = h("figcaption");
    this.share = s("svg", { role: "img" });
    this.ratio = s("svg", { role: "img" });
    this.tiles = h("div", { class: "clocks", role: "radiogroup", "aria-label": "The schedule that is shown large" });
    this.playButton = h("button", { type: "button", class: "play", "aria-pressed": "false", click: () => (this.timer ? this.pause() : this.play()) }, "Play");
    this.range = h("input", { type: "range", min: 0, value: 0, step: 1, "aria-label": "Time t, from picture to noise",
      input: () => { this.pause(); this.choose({ t: Number(this.range.value) }); } });
    this.status = h("output", { class: "status" });
    this.sentence = h("span", { class: "badge" });
    this.card = h("section", { class: "card", "aria-label": "Noise explorer" },
      h("div", { class: "noising" },
        h("figure", { class: "lead" }, this.hero, this.heroCaption),
        h("figure", {}, this.share, h("figcaption", {}, h("b", {}, "How much picture is left: "), "its share of the variance, ᾱ")),
        h("figure", {}, this.ratio, h("figcaption", {}, h("b", {}, "Signal to noise: "), "0 dB is as much picture as noise, −20 dB a hundredth"))),
      this.tiles, h("div", { class: "bar" }, this.playButton, this.range, this.status), h("footer", {}, this.sentence));
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
    this.range.max = this.schedules[0].signal.length - 1;
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

  get chosen() { return this.schedules.find((one) => one.label === this.state.schedule) ?? this.schedules[0]; }

  buildTiles() {
    const clean = h("canvas", { role: "img", "aria-label": "The picture without noise", class: this.data.picture ? "smooth" : "hard" });
    if (this.data.picture) {
      createImageBitmap(new Blob([this.data.picture], { type: "image/webp" })).then((bitmap) => { paintBitmap(clean, bitmap); bitmap.close(); });
    } else paintLinear(clean, this.data.x0, this.data.factors);
    clean.style.aspectRatio = this.hero.style.aspectRatio;
    this.canvases = this.schedules.map(() => h("canvas", { role: "img", class: "hard" }));
    this.told = this.schedules.map(() => h("small"));
    this.radios = this.schedules.map(({ label }) => h("input", { type: "radio", name: `clock-${this.id}`, value: label, "aria-label": label,
      change: () => this.choose({ schedule: label }) }));
    this.tiles.replaceChildren(h("figure", { class: "clock" }, clean, h("span", {}, "no noise"), h("small", {}, "the picture")),
      ...this.schedules.map(({ label, colour }, i) => {
        this.canvases[i].style.aspectRatio = this.hero.style.aspectRatio;
        return h("label", { class: "clock" }, this.radios[i], this.canvases[i],
          h("span", {}, h("i", { style: `background: ${colour}` }), label), this.told[i]);
      }));
  }

  draw() {
    if (!this.data || !this.card.isConnected) return;
    const { chosen } = this;
    const last = chosen.signal.length - 1;
    const t = clamp(Math.round(this.state.t), 0, last);
    this.mix(this.hero, chosen, t);
    this.schedules.forEach((one, i) => {
      this.mix(this.canvases[i], one, t);
      this.canvases[i].setAttribute("aria-label", `${one.label} at t = ${t}`);
      this.told[i].textContent = decibels(one.decibels[t]);
      this.radios[i].checked = one === chosen;
    });
    this.hero.setAttribute("aria-label", `Noised latents, ${chosen.label}, t = ${t}`);
    this.heroCaption.replaceChildren(h("b", {}, `At t = ${t}, ${chosen.label}: `),
      `${chosen.signal[t].toFixed(2)} × picture + ${chosen.noise[t].toFixed(2)} × noise`, this.data.grey ? ", in grey" : ", in rough colours");
    this.sentence.textContent = `${chosen.label}: ${chosen.sentence}`;
    this.range.value = t;
    this.range.style.setProperty("--done", `${(100 * t) / last}%`);
    const words = `t = ${t} · ${(100 * chosen.share[t]).toFixed(chosen.share[t] < 0.1 ? 1 : 0)} % picture · ${decibels(chosen.decibels[t])}`;
    this.status.textContent = words;
    this.range.setAttribute("aria-valuetext", words);
    const every = Math.max(1, Math.round(last / 150));
    const places = [...chosen.signal.keys()].filter((k) => k % every === 0 || k === last);
    const lines = (values) => this.schedules.map((one) => ({
      colour: one.colour, strong: one === chosen, points: places.map((k) => [k, values(one)[k]]), dot: [t, values(one)[t]],
    }));
    const common = { x: [0, last], xTicks: [[0, "0"], [last / 2, String(Math.round(last / 2))], [last, String(last)]], xLabel: "time t", now: t };
    drawCurves(this.share, { ...common, y: [0, 1], yTicks: [[0, "0"], [0.5, "50"], [1, "100"]], yLabel: "picture, %",
      lines: lines((one) => one.share), words: `Share of the picture against t for ${this.schedules.length} schedules; ${words}` });
    drawCurves(this.ratio, { ...common, y: [-FLOOR, FLOOR], yTicks: [[-20, "−20"], [0, "0"], [20, "20"]], yLabel: "signal to noise, dB",
      lines: lines((one) => one.decibels.map((v) => clamp(v, -999, 999))), words: `Signal to noise against t; ${words}` });
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

  play() {
    const last = Number(this.range.max);
    if (this.state.t >= last) this.choose({ t: 0 });
    this.timer = setInterval(() => {
      if (!this.card.isConnected) return this.pause();
      this.set({ t: Math.min(last, this.state.t + Math.max(1, last / 100)) });
      if (this.state.t >= last) this.pause();
    }, 40);
    this.mark();
  }

  pause() {
    if (this.timer) this.changed?.({ t: Math.round(this.state.t) });
    clearInterval(this.timer);
    this.timer = 0;
    this.mark();
  }

  mark() {
    this.playButton.textContent = this.timer ? "Pause" : "Play";
    this.playButton.setAttribute("aria-pressed", String(!!this.timer));
  }

  close() {
    this.pause();
    this.watcher.disconnect();
  }
}

function decibels(value) {
  if (value === -Infinity) return "pure noise";
  if (value === Infinity) return "no noise";
  return `${value.toFixed(1).replace("-", "−")} dB`;
}
