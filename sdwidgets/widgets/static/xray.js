// The prompt X-ray: class PromptXray, on what common.js and curves.js give. The maps come as bytes; colours are made here.

const percent = (share) => `${tidy(100 * share, share < 0.001 ? 3 : share < 0.1 ? 2 : 1)} %`;
const ABOUT = { // a token, and what the tokenizer adds
  text: "The text encoder reads from left to right, so a token carries what stood before it too: a small word may light up the noun that it follows.",
  start: "The start mark stands before every prompt, whatever it says. Positions that need no word look there.",
  end: "The end mark closes the prompt. The text encoder puts a summary of the whole sentence there.",
  padding: "The model always reads the same number of tokens, so the rest is padding. Padding carries the whole sentence too; it is shown together, as one.",
};

class PromptXray {
  constructor() {
    this.id = Math.random().toString(36).slice(2, 8);
    this.state = { token: 0, step: 0, layers: "all" };
    this.changed = null;
    this.grey = null; // the finished picture without its colours, a canvas
    this.heading = h("header", { class: "heading" });
    this.note = h("p", { class: "note", role: "status", hidden: true });
    this.chips = h("div", { class: "seen", role: "radiogroup", "aria-label": "The tokens that the model read" });
    this.truncated = h("p", { class: "tokens left-out", hidden: true });
    this.hero = h("canvas", { role: "img" });
    this.scale = h("div", { class: "heat-scale", "aria-hidden": "true" }, this.low = h("span"), this.ramp = h("i"), this.high = h("span"));
    this.heroCaption = h("figcaption", { "aria-live": "polite" });
    this.beside = h("canvas", { role: "img" });
    this.besideCaption = h("figcaption");
    this.curve = s("svg", { role: "img" });
    this.curveCaption = h("figcaption");
    this.views = h("div", { class: "views", role: "radiogroup", "aria-label": "Which layers of the U-Net" });
    this.viewsCaption = h("p", { class: "hint" });
    this.about = h("p", { class: "hint about" });
    this.range = h("input", { type: "range", min: 0, value: 0, step: 1, "aria-label": "Step",
      input: () => this.choose({ step: this.numberAt(Number(this.range.value)) }) });
    this.all = h("button", { type: "button", class: "play", "aria-pressed": "true", click: () => this.choose({ step: 0 }) }, "All steps");
    this.status = h("output", { class: "status" });
    this.badge = h("span", { class: "badge" });
    this.kept = h("span", { class: "badge" });
    this.card = h("section", { class: "card xray", "aria-label": "X-ray of a prompt" },
      this.heading, this.note, this.chips, this.truncated,
      h("div", { class: "xray-stage" },
        h("figure", { class: "lead" }, this.hero, this.scale, this.heroCaption),
        h("figure", { class: "beside" }, this.beside, this.besideCaption),
        h("figure", { class: "by-step" }, this.curve, this.curveCaption),
        h("div", { class: "by-layer" }, h("b", {}, "Which layers look"), this.views, this.viewsCaption, this.about)),
      h("div", { class: "bar" }, this.all, this.range, this.status),
      h("footer", {}, this.badge, this.kept));
    this.watcher = new ResizeObserver(() => requestAnimationFrame(() => this.draw()));
    this.watcher.observe(this.curve);
  }

  open(data) {
    this.data = data;
    this.blocks = Object.fromEntries(data.blocks.map((block) => [block.name, block]));
    this.heading.replaceChildren(h("h2", { dir: "auto" }, data.prompt || "(the prompt is not known: only its embeddings were given)"), h("p", {}, data.line));
    this.hero.style.aspectRatio = this.beside.style.aspectRatio = data.aspect;
    this.range.max = data.steps.length;
    this.ramp.style.background = `linear-gradient(to right, ${data.colours.map((c) => `rgb(${c})`).join(", ")})`;
    this.badge.textContent = data.badge;
    this.kept.textContent = data.kept;
    if (data.unknown.length) {
      this.note.hidden = false;
      this.note.replaceChildren(h("b", {}, data.unknown.length === 1 ? "A word the model never saw: " : "Words the model never saw: "),
        data.unknown.join(", "), data.unknown.length === 1 ? ". Nothing in its training said what it looks like." : ". Nothing in its training said what they look like.");
    }
    if (data.truncated.length) {
      this.truncated.hidden = false;
      this.truncated.replaceChildren(h("span", {}, `Cut off, because the model reads ${data.limit} tokens and these come after:`),
        ...data.truncated.map((text) => h("span", { class: "chip cut", dir: "auto" }, text || "·")), data.more ? `and ${data.more} more` : "");
    }
    this.buildChips();
    this.buildViews();
    decodePicture(data.picture).then((bitmap) => {
      this.bitmap = bitmap;
      this.grey = h("canvas");
      paintBitmap(this.grey, bitmap);
      const context = this.grey.getContext("2d");
      const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height);
      for (let i = 0; i < pixels.data.length; i += 4) {
        const [red, green, blue] = pixels.data.subarray(i, i + 3);
        pixels.data.fill(0.299 * red + 0.587 * green + 0.114 * blue, i, i + 3); // ITU-R BT.601 luma
      }
      context.putImageData(pixels, 0, 0);
      this.draw();
    });
    this.set({});
  }

  set(state) {
    this.state = { ...this.state, ...state };
    this.draw();
  }

  choose(state) {
    this.set(state);
    this.changed?.(state);
  }

  close() {
    this.watcher.disconnect();
    this.bitmap?.close();
  }

  // -- what is chosen

  /** Position on the slider: 0 for all steps, else the step that is nearest to the chosen one. A long run is thinned for a page. */
  get position() {
    const { step } = this.state;
    if (!step) return 0;
    const away = this.data.steps.map(({ number }) => Math.abs(number - step));
    return 1 + away.indexOf(Math.min(...away));
  }

  numberAt(position) { return position ? this.data.steps[position - 1].number : 0; }

  get block() { return this.blocks[this.state.layers] ?? this.blocks.all; }

  /** The chosen tokens: one, or all of a word. */
  get chosen() { return [this.state.token].flat(); }

  /** The numbers of the map of some tokens together: {height, width, values (0 to 1 between the map's least and most), low, high}. */
  map(tokens) {
    const maps = tokens.map((token) => this.block.maps[token]);
    const { shape: [, height, width] } = maps[0];
    const shares = Float32Array.from({ length: height * width }, (_, i) => maps.reduce(
      (sum, { low, high, data }) => sum + low + ((high - low) * data[this.position * height * width + i]) / 255, 0));
    const [low, high] = shares.reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x)], [Infinity, -Infinity]);
    return { height, width, values: shares.map((x) => (x - low) / Math.max(1e-9, high - low)), low, high };
  }

  heat(x) {
    const { colours } = this.data;
    const position = clamp(x, 0, 1) * (colours.length - 1);
    const at = Math.min(Math.floor(position), colours.length - 2);
    return colours[at].map((a, i) => a + (colours[at + 1][i] - a) * (position - at));
  }

  // -- building

  buildChips() {
    const { tokens } = this.data;
    this.thumbnails = tokens.map(() => h("canvas", { "aria-hidden": "true" }));
    this.percents = tokens.map(() => h("small"));
    this.radios = tokens.map((token, i) => h("input", { type: "radio", name: `token-${this.id}`, value: i, "aria-label": this.name(i),
      change: () => this.choose({ token: i }) }));
    this.chips.classList.toggle("many", tokens.length > 20);
    this.chips.replaceChildren(...tokens.map((token, i) => {
      this.thumbnails[i].style.aspectRatio = this.data.aspect;
      const goesOn = token.word >= 0 && tokens[i + 1]?.word === token.word; // the next token is of the same word
      return h("label", { class: `token ${token.kind} ${goesOn ? "goes-on" : ""} ${token.unknown ? "unknown" : ""}`,
        title: token.unknown ? "The model never saw this word" : null },
        this.radios[i], this.thumbnails[i],
        h("span", { dir: "auto" }, token.text), this.percents[i]);
    }));
  }

  name(i) {
    const token = this.data.tokens[i];
    const text = token.kind === "text" ? `token ${i}, ${token.text}` : { start: "start mark", end: "end mark", padding: `padding, ${token.positions} tokens` }[token.kind];
    return token.unknown ? `${text}, never seen in training` : text;
  }

  buildViews() {
    const label = ({ name, size }) => name === "all" ? "all" : `${name} · ${size[1]} × ${size[0]}`;
    this.layerRadios = this.data.blocks.map((block) => h("input", { type: "radio", name: `layers-${this.id}`, value: block.name,
      "aria-label": block.name === "all" ? "all layers" : `${block.name}, ${block.size[1]} by ${block.size[0]} places`,
      change: () => this.choose({ layers: block.name }) }));
    this.views.replaceChildren(...this.data.blocks.map((block, i) => h("label", {}, this.layerRadios[i], h("span", {}, label(block)))));
  }

  // -- drawing

  draw() {
    if (!this.data || !this.card.isConnected) return;
    const { data, block, position } = this;
    const { chosen } = this;
    const shares = block.mean_attention[position];
    data.tokens.forEach((_, i) => {
      const { width, height, values } = this.map([i]);
      paintPixels(this.thumbnails[i], width, height, (k) => this.heat(values[k]));
      this.percents[i].textContent = percent(shares[i]) + (data.tokens[i].positions > 1 ? `, ${data.tokens[i].positions} tokens` : "");
      this.radios[i].checked = i === chosen[0];
      this.radios[i].tabIndex = i === chosen[0] ? 0 : -1;
      this.radios[i].parentElement.classList.toggle("together", chosen.length > 1 && chosen.includes(i));
    });
    this.layerRadios.forEach((radio) => { radio.checked = radio.value === block.name; });
    const when = position ? `step ${data.steps[position - 1].number} of ${data.total} · t = ${tidy(data.steps[position - 1].t, 0)}` : `all ${data.total} steps together`;
    this.status.textContent = when;
    this.range.value = position;
    this.range.style.setProperty("--done", `${(100 * position) / Math.max(1, data.steps.length)}%`);
    this.range.setAttribute("aria-valuetext", when);
    this.all.setAttribute("aria-pressed", String(!position));
    this.drawHero(when);
    this.drawBeside(position);
    this.drawCurve();
    this.viewsCaption.textContent = block.name === "all"
      ? `All ${block.layers} layers of the U-Net that read the prompt, brought to one size and averaged.`
      : `${block.layers === 1 ? "One layer" : `${block.layers} layers, averaged`}; each square is one position of ${block.size[1]} × ${block.size[0]} that looks at the prompt.`;
  }

  drawHero(when) {
    const map = this.map(this.chosen);
    const tokens = this.chosen.map((i) => this.data.tokens[i]);
    const [token] = tokens;
    const { hero, grey, data } = this;
    const small = h("canvas");
    paintPixels(small, map.width, map.height, (i) => this.heat(map.values[i]));
    [hero.width, hero.height] = grey ? [grey.width, grey.height] : [small.width, small.height];
    const context = hero.getContext("2d");
    if (grey) context.drawImage(grey, 0, 0);
    context.globalAlpha = grey ? 1 - data.through : 1;
    context.imageSmoothingEnabled = this.block.name === "all"; // single layers show their squares
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, hero.width, hero.height);
    const name = token.kind === "text" ? `“${tokens.map(({ text, word }, i) => (i && word !== tokens[i - 1].word ? " " : "") + text).join("")}”` : { start: "the start mark", end: "the end mark", padding: "the padding" }[token.kind];
    hero.setAttribute("aria-label", `Where the picture looks at ${name}, ${when}: from ${percent(map.low)} to ${percent(map.high)} of a position's attention`);
    this.low.textContent = percent(map.low);
    this.high.textContent = percent(map.high);
    this.heroCaption.replaceChildren(h("b", { dir: "auto" }, `Where the picture looks at ${name}: `),
      "each position divides its attention among all tokens; bright ones give this one the most of theirs.");
    this.about.replaceChildren(h("b", { dir: "auto" }, `About ${name}`), ABOUT[token.kind]);
  }

  drawBeside(position) {
    const { beside, data } = this;
    beside.className = position ? "hard" : "smooth";
    if (position) paintLinear(beside, data.steps[position - 1].x0, data.factors);
    else if (this.bitmap) paintBitmap(beside, this.bitmap);
    beside.setAttribute("aria-label", position ? `The picture it predicts at step ${data.steps[position - 1].number}` : "The finished picture");
    this.besideCaption.replaceChildren(...(position
      ? [h("b", {}, "Predicted picture at this step: "), "in rough colours"]
      : [h("b", {}, "The finished picture")]));
  }

  drawCurve() {
    const { data, block, chosen } = this;
    const line = (tokens) => data.steps.map(({ number }, k) => [number, 100 * tokens.reduce((sum, i) => sum + block.mean_attention[k + 1][i], 0)]);
    const others = data.tokens.map((_, i) => i).filter((i) => !chosen.includes(i) && data.tokens[i].kind === "text" && data.tokens[chosen[0]].kind === "text");
    const top = Math.max(...[chosen, ...others.map((i) => [i])].flatMap((tokens) => line(tokens).map(([, y]) => y)));
    const power = 10 ** Math.floor(Math.log10(Math.max(top, 1e-3)));
    const high = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((n) => n * power >= top) * power;
    const last = Math.max(2, data.total);
    const { position } = this;
    drawCurves(this.curve, {
      x: [1, last], y: [0, high], xTicks: [[1, "1"], [last, String(last)]], yTicks: [0, high / 2, high].map((y) => [y, tidy(y, 3)]),
      xLabel: "step", yLabel: "attention, %", now: position ? data.steps[position - 1].number : null, label: `Share of all attention that goes to this token, by step: ${line(chosen).map(([, y]) => tidy(y, 2)).join(", ")} percent`,
      lines: [...others.map((i) => ({ points: line([i]), colour: "var(--dim)", strong: false, dot: null })),
        { points: line(chosen), colour: "var(--accent)", strong: true, dot: position ? line(chosen)[position - 1] : null }],
    });
    this.curveCaption.replaceChildren(h("b", {}, "Its share of all attention, step by step"), others.length ? "; thin: the other tokens of the prompt" : "");
  }
}
