// The live diagram of a pipeline: class Diagram, on what common.js and curves.js give. Boxes and pictures are HTML in a grid; the lines
// between them are drawn from where they stand. What a box opens into is in diagram_parts.js.

const whole = (n) => n.toLocaleString("en");
const size = (n) => (n >= 1e9 ? `${tidy(n / 1e9, 1)} B` : n >= 1e5 ? `${tidy(n / 1e6, 1)} M` : whole(n));
const by = (numbers) => numbers.join(" × ");
const PREDICTED = { epsilon: "noise", v_prediction: "v", sample: "x₀", flow_prediction: "velocity" };

class Diagram {
  constructor() {
    this.id = Math.random().toString(36).slice(2, 8);
    this.state = { step: 0, part: null };
    this.changed = null;
    this.heading = h("header", { class: "heading" });
    this.notes = h("p", { class: "families", hidden: true });
    this.flow = h("div", { class: "flow" });
    this.player = new Player({
      label: "Step", range: { step: 1, value: 0 }, pause: 400, alive: () => this.card.isConnected, ended: () => {},
      begin: () => { if (this.column === this.last) this.choose({ step: 0 }); },
      next: () => { this.choose({ step: this.data.steps[Math.min(this.last, this.column + 1)].number - 1 }); return this.column < this.last; },
      moved: (column) => this.choose({ step: this.data.steps[column].number - 1 }),
    });
    this.title = h("h3", { id: `title-${this.id}` });
    this.inside = h("div", { class: "content" });
    this.panel = h("section", { class: "inside", id: `inside-${this.id}`, "aria-labelledby": `title-${this.id}`, hidden: true },
      h("header", {}, this.title, h("button", { type: "button", class: "quiet", click: () => this.shut() }, "Close (Esc)")), this.inside);
    this.said = h("p", { class: "unseen", role: "status" });
    this.badge = h("span", { class: "badge" });
    this.card = h("section", { class: "card diagram", tabindex: -1, "aria-label": "Diagram of a pipeline", keydown: (event) => this.key(event) },
      this.heading, this.notes, this.flow, this.player.bar, this.panel, this.said,
      h("footer", {}, this.badge));
    this.projection = new Projection(this.card, "For a room: larger type");
    this.card.querySelector("footer").append(this.projection.buttons);
    this.watcher = new ResizeObserver(() => requestAnimationFrame(() => this.data && this.card.isConnected && (this.drawLines(), this.fill())));
    this.watcher.observe(this.flow);
  }

  async open(data) {
    this.data = data;
    this.player.range.max = this.last;
    this.heading.replaceChildren(h("h2", { dir: "auto" }, data.prompt || "(no prompt)"), h("p", {}, data.line));
    this.notes.textContent = data.notes.join(" ");
    this.notes.hidden = !data.notes.length;
    this.badge.textContent = data.badge;
    this.build();
    this.show();
    const bitmaps = { sheet: data.sheet.picture, previews: data.previews?.picture, picture: data.picture, source: data.source };
    this.bitmaps = {};
    await Promise.all(Object.entries(bitmaps).filter(([, bytes]) => bytes).map(async ([name, bytes]) => { this.bitmaps[name] = await decodePicture(bytes); }));
    this.show();
    this.card.dataset.ready = "true";
  }

  set(state) {
    this.state = { ...this.state, ...state };
    this.show();
  }

  choose(state) {
    this.set(state);
    this.changed?.(state);
  }

  close() {
    this.player.pause();
    this.watcher.disconnect();
    for (const bitmap of Object.values(this.bitmaps ?? {})) bitmap.close();
  }

  // -- what is chosen

  get last() { return this.data.steps.length - 1; }

  /** The column of the sheet that is nearest to the chosen step: a long run is thinned for a page. */
  get column() {
    const away = this.data.steps.map(({ number }) => Math.abs(number - 1 - this.state.step));
    return away.indexOf(Math.min(...away));
  }

  get now() { return this.data.steps[this.column]; }
  get denoiser() { return this.data.denoiser?.kind === "transformer" ? "transformer" : "U-Net"; }
  get kind() { return PREDICTED[this.data.prediction] ?? this.data.prediction; }

  toggle(part, button) {
    this.pressed = button;
    if (this.state.part === part) return this.shut();
    this.choose({ part });
    this.said.textContent = `${this.title.textContent}: opened under the diagram`;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.panel.scrollIntoView({ block: "nearest", behavior: still ? "auto" : "smooth" });
  }

  shut() {
    this.choose({ part: null });
    this.said.textContent = "Closed";
    this.pressed?.focus();
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape" && this.state.part && !this.projection.isFullScreen) {
      event.preventDefault();
      event.stopPropagation();
      return this.shut();
    }
    if (event.key === "f" || event.key === "F") {
      event.preventDefault();
      return this.projection.toggle();
    }
    if (event.target.closest("input")) return; // the slider has its own arrows
    const places = { ArrowLeft: this.column - 1, ArrowRight: this.column + 1, Home: 0, End: this.last };
    if (!(event.key in places)) return;
    event.preventDefault();
    this.player.pause();
    this.choose({ step: this.data.steps[clamp(places[event.key], 0, this.last)].number - 1 });
  }

  // -- building

  /** A picture with its name; `body` takes the place of the canvas. */
  thumb(name, title, words, body = h("canvas", { role: "img", width: 1, height: 1 })) {
    if (body.tagName === "CANVAS" && name !== "embeddings") body.style.aspectRatio = this.data.aspect;
    const caption = h("figcaption", {}, h("b", {}, ...[title].flat()), ...(words ? [h("span", {}, ...[words].flat())] : []));
    return { body, caption, node: h("figure", { class: `node ${name}` }, caption, body) };
  }

  /** A part as a button that opens it. */
  box(part, name, title, words, ...more) {
    const button = h("button", { type: "button", class: `box ${part}`, "aria-expanded": "false", "aria-controls": this.panel.id, click: () => this.toggle(part, button) },
      h("b", {}, title), ...more, h("span", {}, words));
    if (!this.data.parts.includes(part)) button.disabled = true;
    this.buttons.push({ name: part, button });
    return { body: button, node: h("div", { class: `node ${name}` }, button) };
  }

  build() {
    const { data } = this;
    const { text, embeddings, vae } = data;
    this.buttons = [];
    const at = (this.at = {});
    const other = data.guided ? `the ${data.negative_prompt ? "negative" : "empty"} prompt` : "";
    at.prompt = this.thumb("prompt", "prompt", other && `and ${other}`, h("p", { class: "said", dir: "auto" }, data.prompt ? `“${data.prompt}”` : "(none)"));
    at.tokens = this.thumb("tokens", "tokens", text.length ? `${text[0].read}, padding included` : "", h("p", { class: "chips" }, ...this.chips(text[0], 12)));
    const sum = text.reduce((total, one) => total + one.parameters, 0);
    at.encoder = this.box("text_encoder", "encoder", text.length > 1 ? `${text.length} text encoders` : "text encoder", sum ? `${size(sum)} parameters` : data.denoiser ? "not called" : "");
    at.embeddings = this.thumb("embeddings", "embeddings", embeddings ? by(embeddings.shape) + (other && ` of the prompt (drawn), and as many of ${other}`) : "");
    at.noise = this.thumb("noise", "noise sample", data.seed === null ? "" : `seed ${data.seed}`);
    at.noisy = this.thumb("noisy", sub("x", "t"), by(data.shape));
    at.unet = this.box("denoiser", "unet", this.denoiser, data.denoiser ? `${size(data.denoiser.parameters)} parameters` : "", ...this.icon());
    this.t = h("span", { class: "t" });
    at.unet.node.append(this.t);
    const stack = (name, ...thumbs) => h("div", { class: `node stack ${name}` }, ...thumbs.map(({ node }) => node));
    const mixed = data.guided ? "mixed" : [`predicted ${this.kind}`];
    at.cond = this.thumb("cond", "with prompt");
    at.uncond = this.thumb("uncond", data.negative_prompt ? "negative" : "without");
    at.guidance = this.box("guidance", "guide", "guidance", data.guided ? ["w = ", tidy(data.guidance ?? 1, 2)].join("") : "");
    at.guided = this.thumb("guided", mixed);
    at.x0 = this.thumb("x0", ["predicted ", ...sub("x", "0")]);
    at.scheduler = this.box("scheduler", "sched", "scheduler", data.scheduler);
    at.next = this.thumb("next", sub("x", "t−1"), by(data.shape));
    at.again = { body: h("span", {}, `${data.total} ${data.total === 1 ? "step" : "steps"}: again with ${data.total === 1 ? "no other" : "the new"} `, ...sub("x", "t")) };
    at.source = this.thumb("source", data.source ? "a picture" : "image to image", data.source ? "goes in" : "", data.source ? undefined : h("p", { class: "none" }, "a picture would go in here"));
    at.vaeEncoder = this.box("vae", "vae-encoder", "VAE encoder", data.source ? "picture to latents" : "not called");
    at.decoder = this.box("vae", "decoder", "VAE decoder", vae ? `${size(vae[2])} parameters` : "");
    at.picture = this.thumb("picture", "picture", by([data.pixels[1], data.pixels[0], 3]));
    this.level = h("div", { class: "node level" }, this.levelBar = h("i", { "aria-hidden": "true" }), this.levelText = h("span"));
    this.lines = s("svg", { class: "lines", "aria-hidden": "true" });
    this.words = h("div", { class: "words" }, at.prompt.node, at.tokens.node, at.encoder.node, at.embeddings.node);
    this.area = h("div", { class: "area-of-loop" });
    const both = [at.cond, at.uncond], one = [at.guided, at.x0];
    this.flow.classList.toggle("alone", !data.guided);
    this.card.classList.toggle("from-picture", !!data.source);
    this.flow.replaceChildren(this.lines, this.area, this.words, at.noise.node, at.noisy.node, at.unet.node,
      ...(data.guided ? [stack("both", ...both), at.guidance.node] : []), stack("one", ...one), at.scheduler.node, at.next.node,
      h("div", { class: "again" }, at.again.body), this.level, at.decoder.node, at.picture.node, at.source.node, at.vaeEncoder.node);
    if (!data.guided) this.buttons = this.buttons.filter(({ name }) => name !== "guidance");
  }

  chips(encoder, most) {
    if (!encoder) return ["–"];
    const left = encoder.tokens.length - most;
    return [...encoder.tokens.slice(0, most).map(([kind, text]) => h("span", { class: kind === "text" ? "chip" : `chip ${kind}`, dir: "auto" }, text)),
      ...(left > 0 ? [h("span", { class: "chip end" }, `+ ${left}`)] : []), ...(encoder.padding > 0 ? [h("span", { class: "chip end" }, `${encoder.padding} padding`)] : [])];
  }

  /** The denoiser's blocks as bars, as high as their grids: a U. */
  icon() {
    const blocks = this.data.denoiser?.blocks ?? [];
    if (!blocks.length) return [];
    const top = Math.max(...blocks.map(({ shape }) => shape[1])), wide = 100 / blocks.length;
    return [s("svg", { class: "u", viewBox: "0 0 100 44", preserveAspectRatio: "none", "aria-hidden": "true" }, ...blocks.map(({ shape }, i) => {
      const high = Math.max(4, (44 * shape[1]) / top);
      return s("rect", { x: i * wide + wide * 0.14, width: wide * 0.72, y: (44 - high) / 2, height: high, rx: 1 });
    }))];
  }

  // -- drawing

  /** A picture of the sheet, of this row and the chosen column, in this canvas. */
  paint(canvas, row, column = this.column) {
    const { sheet } = this.data;
    if (row === "following" && !sheet.names.includes(row)) return this.paint(canvas, "noisy", column + 1);
    const line = sheet.names.indexOf(row);
    if (line < 0 || !this.bitmaps?.sheet) return;
    const [high, wide] = sheet.size;
    [canvas.width, canvas.height] = [wide, high];
    canvas.classList.add("hard");
    canvas.getContext("2d").drawImage(this.bitmaps.sheet, column * wide, line * high, wide, high, 0, 0, wide, high);
  }

  /** Predicted x0: decoded where the run carries that, else in rough colours. */
  paintPredicted(canvas) {
    if (!this.data.previews) return this.paint(canvas, "x0");
    if (!this.bitmaps?.previews) return;
    const [high, wide] = this.data.previews.size;
    [canvas.width, canvas.height] = [wide, high];
    canvas.getContext("2d").drawImage(this.bitmaps.previews, this.column * wide, 0, wide, high, 0, 0, wide, high);
  }

  show() {
    if (!this.data) return;
    const { data, now, at, column } = this;
    const step = `step ${now.number} of ${data.total}`;
    for (const [name, row] of Object.entries({ noisy: "noisy", cond: "cond", uncond: "uncond", guided: "guided", next: "following" })) {
      this.paint(at[name].body, row);
    }
    this.paintPredicted(at.x0.body);
    paintLinear(at.noise.body, data.noise, data.factors);
    at.noise.body.classList.add("hard");
    if (this.bitmaps?.picture) paintBitmap(at.picture.body, this.bitmaps.picture);
    if (this.bitmaps?.source) paintBitmap(at.source.body, this.bitmaps.source);
    if (data.embeddings) this.paintEmbeddings(at.embeddings.body);
    const names = { noise: "The noise sample", noisy: "The noisy latents x t", cond: `Predicted ${this.kind} with the prompt`, uncond: `Predicted ${this.kind} without the prompt`,
      guided: data.guided ? "Both predictions mixed by guidance" : `Predicted ${this.kind}`, x0: "The predicted picture, x 0", next: "The latents after the step, x t minus 1", picture: "The finished picture", source: "The picture that goes in", embeddings: "Embeddings of the prompt, a row for each token" };
    for (const [name, words] of Object.entries(names)) if (at[name].body.tagName === "CANVAS") at[name].body.setAttribute("aria-label", ["noise", "picture", "source", "embeddings"].includes(name) ? words : `${words}, ${step}`);
    this.t.replaceChildren("timestep ", h("i", {}, "t"), ` = ${tidy(now.t, 0)}`);
    const share = Math.round(100 * now.share);
    this.levelBar.style.setProperty("--share", `${100 * now.share}%`);
    this.levelText.replaceChildren(...sub("x", "t"), ` now: ${share} % picture, ${100 - share} % noise`);
    this.player.show(column, this.last ? column / this.last : 1, `${step} · t = ${tidy(now.t, 0)}`);
    for (const { name, button } of this.buttons) {
      button.setAttribute("aria-expanded", String(name === this.state.part));
    }
    this.fill();
    this.drawLines();
  }

  /** The open panel, at this step. */
  fill() {
    const { part } = this.state;
    const open = part !== null && this.data.parts.includes(part);
    this.panel.hidden = !open;
    this.panel.className = `inside ${part ?? ""}`;
    if (!open) return;
    const { title, content, after } = PANELS[part](this);
    this.title.textContent = title;
    this.inside.replaceChildren(...content);
    after?.();
  }

  paintEmbeddings(canvas) {
    const { packed, limit } = this.data.embeddings;
    const [, rows, wide] = packed.shape;
    const values = numbers(packed);
    paintPixels(canvas, wide, rows, (i) => diverging(values[i] / limit));
    canvas.classList.add("hard");
  }

  // -- lines

  /** Where an element stands in the diagram, in its own pixels, whatever it is scaled by. */
  place({ body }) {
    const frame = this.flow.getBoundingClientRect(), rect = body.getBoundingClientRect();
    const k = frame.width / this.flow.offsetWidth || 1;
    const [l, t, r, b] = [(rect.left - frame.left) / k, (rect.top - frame.top) / k, (rect.right - frame.left) / k, (rect.bottom - frame.top) / k];
    return { l, t, r, b, x: (l + r) / 2, y: (t + b) / 2, w: r - l };
  }

  drawLines() {
    const { offsetWidth: width, offsetHeight: height } = this.flow;
    if (!width || !this.at) return;
    const tall = getComputedStyle(this.flow).getPropertyValue("--way").trim() === "tall";
    const at = Object.fromEntries(Object.entries(this.at).map(([name, thing]) => [name, this.place(thing)]));
    const lines = tall ? this.chain(at, width) : this.loop(at);
    this.lines.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.lines.replaceChildren(...lines.flatMap(([kind, points]) => {
      const words = kind.split(" ");
      const path = s("polyline", { class: `way ${kind}`, points: points.map((p) => p.map((v) => v.toFixed(1)).join()).join(" ") });
      if (words.includes("open")) return [path];
      const [[x1, y1], [x2, y2]] = points.slice(-2);
      const angle = Math.atan2(y2 - y1, x2 - x1);
      const head = [-2.65, 2.65].map((turn) => [x2 + 9 * Math.cos(angle + turn), y2 + 9 * Math.sin(angle + turn)]);
      return [path, s("polygon", { class: `tip ${kind}`, points: [[x2, y2], ...head].map((p) => p.map((v) => v.toFixed(1)).join()).join(" ") })];
    }));
  }

  /** Lines common to both layouts: `on` leads from one to the next. */
  parts(at, on) {
    const { guided, source } = this.data;
    const dashed = source ? "" : "dashed";
    return [
      ["", on(at.prompt, at.tokens)], ["", on(at.tokens, at.encoder)], ["", on(at.encoder, at.embeddings)], ["", on(at.noise, at.noisy)],
      ...(guided ? [["", on(at.unet, at.cond)], ["", on(at.unet, at.uncond)], ["", on(at.cond, at.guidance)], ["", on(at.uncond, at.guidance)], ["", on(at.guidance, at.guided)]]
        : [["", on(at.unet, at.guided)]]),
      ["", beneath(at.guided, at.x0)], ["", on(at.x0, at.scheduler)], ["", on(at.scheduler, at.next)], [dashed, on(at.source, at.vaeEncoder)],
    ];
  }

  loop(at) {
    const { noisy, unet, next, again, decoder, picture, embeddings, vaeEncoder, scheduler } = at;
    const words = this.place({ body: this.words }), area = this.place({ body: this.area }), t = this.place({ body: this.t });
    const gutter = (words.b + area.t) / 2, left = noisy.l + 0.68 * noisy.w, right = next.l + 0.32 * next.w, down = next.l + 0.72 * next.w;
    const up = noisy.l + 0.3 * noisy.w, branch = (noisy.r + unet.l) / 2 - 4, low = this.place({ body: this.at.x0.caption }).b + 12;
    const end = this.column === this.last;
    return [
      ...this.parts(at, beside), ["", beside(noisy, unet)],
      ["", [[embeddings.x, embeddings.b + 4], [embeddings.x, gutter], [unet.x, gutter], [unet.x, unet.t - 4]]],
      ["", [[unet.x, t.t - 1], [unet.x, unet.b + 4]]],
      ["", [[branch, beside(noisy, unet)[0][1]], [branch, low], [scheduler.x, low], [scheduler.x, scheduler.b + 4]]],
      [`open ${end ? "rest" : "live"}`, [[right, next.b + 4], [right, again.y], [again.r + 8, again.y]]],
      [end ? "rest" : "live", [[again.l - 8, again.y], [left, again.y], [left, noisy.b + 4]]],
      [end ? "live" : "rest", [[down, next.b + 4], [down, decoder.t - 4]]],
      [end ? "live" : "rest", [[decoder.l - 4, decoder.y], [picture.r + 4, decoder.y]]],
      [this.data.source ? "" : "dashed", [[up, vaeEncoder.t - 4], [up, noisy.b + 4]]],
    ];
  }

  chain(at, width) {
    const { noisy, unet, next, decoder, picture, embeddings, vaeEncoder, scheduler } = at;
    const [left, inner, right] = [9, 18, width - 9];
    const end = this.column === this.last;
    return [
      ...this.parts(at, (a, b) => beneath(a, b, noisy.x)), ["", beneath(noisy, unet)],
      ["", [[embeddings.r + 3, embeddings.y], [right, embeddings.y], [right, unet.y], [unet.r + 4, unet.y]]],
      ["", [[noisy.l - 3, noisy.y + 26], [inner, noisy.y + 26], [inner, scheduler.y], [scheduler.l - 4, scheduler.y]]],
      [end ? "rest" : "live", [[next.l - 3, next.y], [left, next.y], [left, noisy.y + 12], [noisy.l - 4, noisy.y + 12]]],
      [end ? "live" : "rest", beneath(next, decoder)], [end ? "live" : "rest", beneath(decoder, picture)],
      [this.data.source ? "" : "dashed", [[vaeEncoder.l - 3, vaeEncoder.y], [left, vaeEncoder.y], [left, noisy.y - 12], [noisy.l - 4, noisy.y - 12]]],
    ];
  }
}

/** From the right of one to the left of the other, at a height that both have. */
function beside(a, b) {
  const y = (Math.max(a.t, b.t) + Math.min(a.b, b.b)) / 2;
  return [[a.r + 3, y], [b.l - 4, y]];
}

/** From under one to the top of the other. */
function beneath(a, b, prefer = null) {
  const [low, high] = [Math.max(a.l, b.l), Math.min(a.r, b.r)];
  const x = prefer !== null && prefer >= low && prefer <= high ? prefer : (low + high) / 2;
  return [[x, a.b + 3], [x, b.t - 4]];
}
