// Draws a recorded run under a scrubber: class Replay, on what common.js gives. It works alone in a page that outlives
// the kernel, connected to a kernel by view.py, and under the controls of playground.js in the live widget.

// ---- the scrubber --------------------------------------------------------------------------------------------------

const PREDICTS = { epsilon: "the noise", v_prediction: "the velocity v", flow_prediction: "the flow", flow: "the flow", sample: "the picture" };

const VIEWS = { // what the row of channels can show: button, and the caption
  latents: ["Latents", () => "What it computes on"],
  noise_pred: ["Prediction", (run) => `What the network predicts: ${PREDICTS[run.prediction] ?? "its output"}`],
  cond: ["With prompt", () => "The prediction with your prompt"],
  uncond: ["Without", (run) => run.negative_prompt ? "The prediction with the negative prompt" : "The prediction without a prompt"],
  difference: ["Difference", () => "What the prompt changes: with minus without"],
};

const LARGE = { prediction: "Predicted picture", latents: "Current latents" };

/** How high a line through these points, from left to right, is at x; beyond them as high as their last. */
function heightAt(points, x) {
  const k = points.findIndex(([px]) => px > x);
  if (k < 1) return points.at(k)[1];
  const [[x0, y0], [x1, y1]] = points.slice(k - 1, k + 1);
  return y0 + ((y1 - y0) * (x - x0)) / (x1 - x0);
}

class Replay {
  /** `heading` shows prompt and settings above the pictures, for a page where no controls do. */
  constructor({ heading = true } = {}) {
    const id = (this.id = Math.random().toString(36).slice(2, 8));
    this.run = null;
    this.frames = [];
    this.at = 0;
    this.wanted = Infinity; // the step that the reader chose; Infinity: the newest
    this.view = "latents";
    this.timer = 0; // of the next animation frame; 0: paused
    this.loop = false;
    this.ahead = true; // whether the strip shows steps beyond the furthest that was shown
    this.furthest = 0;
    this.taken = {}; // the state that code set last
    this.changed = null; // called with {step, view, large, playing, speed} when the reader moves something, never by steps of a play

    this.hero = h("canvas", { role: "img", class: "smooth" });
    this.large = "prediction"; // what the large picture shows
    this.choice = h("span", { class: "views", role: "radiogroup", "aria-label": "What the large picture shows" },
      ...Object.entries(LARGE).map(([name, label]) => h("label", {},
        h("input", { type: "radio", name: `large-${id}`, value: name, checked: name === this.large, change: () => { this.large = name; this.show(this.at); this.tell(); } }), h("span", {}, label))));
    this.heroWords = h("span", { class: "words" });
    this.heroCaption = h("figcaption", {}, this.choice, this.heroWords);
    this.currentLatents = h("canvas", { role: "img", class: "hard" });
    this.currentLatentsCaption = h("figcaption");
    this.curve = s("svg", { role: "img" });
    this.views = h("div", { class: "views", role: "radiogroup", "aria-label": "What the row of channels shows" });
    this.channels = h("div", { class: "channels" });
    this.channelCaption = h("figcaption");
    this.strip = h("div", { class: "strip", role: "group", "aria-label": "Every step of the run" });
    this.playButton = h("button", { type: "button", class: "play", "aria-pressed": "false", click: () => this.toggle() }, "Play");
    this.range = h("input", {
      type: "range", min: 0, max: 0, value: 0, "aria-label": "Step",
      input: () => this.choose(Number(this.range.value)),
      change: () => this.tell(),
      keydown: (event) => { if (event.key === " ") { event.preventDefault(); this.toggle(); } },
    });
    this.speed = h("select", { "aria-label": "Speed of play", change: () => this.tell() },
      ...SPEEDS.map(([value, text]) => h("option", { value, selected: value === 1 }, text)));
    this.status = h("output", { class: "status", for: id });
    this.badge = h("span", { class: "badge" });
    this.heading = h("header", { class: "heading", hidden: true });
    this.warning = h("p", { class: "note", role: "status", hidden: true });
    this.main = h("div", { class: "stage" },
      h("figure", { class: "hero" }, this.hero, this.heroCaption),
      this.strip,
      h("div", { class: "bar" }, this.playButton, this.range, this.speed, this.status),
      h("figure", { class: "standing" }, this.currentLatents, this.currentLatentsCaption),
      h("figure", { class: "schedule" }, this.curve,
        h("figcaption", {}, h("b", {}, "Schedule: "), "the picture's share of the variance, step by step")),
      h("figure", { class: "numbers" }, this.views, this.channels, this.channelCaption));
    this.showHeading = heading;
    this.card = h("section", { class: "card", tabindex: -1, "aria-label": "Replay of a run", keydown: (event) => this.key(event) },
      this.heading, this.warning, h("div", { class: "scene" }, this.main),
      h("footer", {}, this.badge));
    this.projection = new Projection(this.card, "For a room: larger type, and only prompt, picture and steps");
    this.card.querySelector("footer").append(this.projection.buttons);

    this.watcher = new ResizeObserver(() => requestAnimationFrame(() => this.fit()));
    this.watcher.observe(this.curve);
    this.watcher.observe(this.strip);
  }

  // -- data in

  /** Show this run instead of the last one, at the step that the reader chose. */
  open(run) {
    this.pause();
    for (const frame of this.frames) frame.bitmap?.close?.();
    this.run = run;
    this.frames = [];
    this.furthest = 0;
    this.range.max = Math.max(0, this.length - 1);
    this.hero.style.aspectRatio = this.currentLatents.style.aspectRatio = run.aspect;
    this.card.style.setProperty("--aspect", run.aspect);
    this.warning.hidden = !run.note;
    this.warning.textContent = run.note ?? "";
    if (run.badge) this.badge.textContent = run.badge;
    if (this.showHeading) {
      this.heading.hidden = false;
      this.heading.replaceChildren(h("h2", { dir: "auto" }, run.prompt || "(no prompt)"), h("p", {}, run.line ?? ""));
      if (run.negative_prompt) this.heading.append(h("p", { dir: "auto" }, "not: ", run.negative_prompt));
    }
    this.buildChannels();
    this.add(0, run.frames);
  }

  /** Frames from number `first` on; while a run goes on they come a few at a time. */
  add(first, frames) {
    frames.forEach((frame, i) => {
      this.frames[first + i] = frame;
      if (frame.picture) this.decode(first + i, frame.picture);
    });
    this.buildViews();
    this.buildStrip();
    this.show(Math.min(this.wanted, this.frames.length - 1));
  }

  /** A picture from the full decoder, instead of the rough one. */
  async decode(index, bytes) {
    const frame = this.frames[index];
    if (!frame) return;
    const bitmap = await decodePicture(bytes);
    if (this.frames[index] !== frame) return bitmap.close(); // the run was replaced meanwhile
    frame.bitmap = bitmap;
    this.paintThumbnails(index);
    if (index === this.at) this.show(index);
  }

  get length() { return this.run.total + (this.run.complete === false ? 0 : 1); } // the steps, and the finished picture

  // -- showing

  show(index) {
    if (!this.run || !this.frames.length) return;
    const k = (this.at = clamp(index, 0, this.frames.length - 1));
    const frame = this.frames[k];
    const words = this.words(k);
    const news = k > this.furthest;
    this.furthest = Math.max(this.furthest, k);
    if (news && !this.ahead) this.paintThumbnails();
    this.paintHero(frame, k, words);
    paintLinear(this.currentLatents, frame.arrays.latents, this.run.factors);
    this.currentLatents.setAttribute("aria-label", `Latents in rough colours, ${words}`);
    this.currentLatentsCaption.replaceChildren(h("b", {}, "Current latents: "),
      ...(k < this.run.total ? ["with their noise, ", ...sub("x", "t")] : ["the finished ones"]),
      this.run.grey ? ", in grey: no colours are known for this model" : ", in rough colours");
    this.paintChannels(frame);
    this.drawCurve();
    this.range.value = k;
    this.range.style.setProperty("--done", `${(100 * k) / Math.max(1, this.length - 1)}%`);
    this.range.setAttribute("aria-valuetext", words);
    this.status.textContent = words;
    for (const thumbnail of this.strip.children) {
      const current = Number(thumbnail.dataset.from) <= k && k < Number(thumbnail.dataset.to);
      thumbnail.setAttribute("aria-current", current ? "step" : "false");
      thumbnail.classList.toggle("ahead", Number(thumbnail.dataset.from) > k);
      thumbnail.tabIndex = current ? 0 : -1;
    }
  }

  /** The large picture: what the network predicts at this step, or where the run is, which is mostly noise at first. */
  paintHero(frame, k, words) {
    const [latents, ended] = [this.large === "latents", k >= this.run.total];
    this.hero.className = latents ? "hard" : "smooth";
    if (latents) paintLinear(this.hero, frame.arrays.latents, this.run.factors);
    else this.paintPicture(this.hero, frame);
    const what = latents ? "Latents in rough colours" : ended ? "The finished picture" : "Predicted picture";
    this.hero.setAttribute("aria-label", ended && !latents ? what : `${what} at ${words}`);
    this.heroWords.replaceChildren(...(latents
      ? [ended ? "finished, in rough colours" : "with their noise, ", ...(ended ? [] : sub("x", "t"))]
      : ended ? ["finished"] : ["as seen from here, ", ...sub("x", "0"), frame.bitmap ? "" : ", rough"]));
  }

  words(k) {
    const { t, share } = this.frames[k];
    const where = k < this.run.total ? `step ${k + 1} of ${this.run.planned ?? this.run.total}` : "finished";
    return `${where} · t = ${tidy(t, t % 1 && t < 100 ? 1 : 0)} · ${Math.round(100 * share)} % picture`;
  }

  paintPicture(canvas, frame) {
    if (frame.bitmap) paintBitmap(canvas, frame.bitmap);
    else if (frame.arrays.x0) paintLinear(canvas, frame.arrays.x0, this.run.factors);
    else if (!frame.picture) paintLinear(canvas, frame.arrays.latents, this.run.factors); // else it is being decoded
  }

  buildChannels() {
    const [channels] = this.run.shape;
    this.channels.style.setProperty("--across", channels <= 4 ? channels : channels <= 8 ? 4 : 8);
    this.channels.classList.toggle("many", channels > 4);
    this.channels.replaceChildren(...Array.from({ length: channels }, (_, i) =>
      h("canvas", { class: "hard", role: "img", "aria-label": `channel ${i + 1}` })));
  }

  buildViews() {
    const has = (name) => this.frames.some((frame) => frame.arrays[name]);
    const names = Object.keys(VIEWS).filter((name) => (name === "difference" ? has("cond") && has("uncond") : has(name)));
    if (!names.includes(this.view)) this.view = "latents";
    const wanted = names.join();
    if (this.views.dataset.names === wanted) return;
    this.views.dataset.names = wanted;
    this.views.hidden = names.length < 2;
    this.views.replaceChildren(...names.map((name) =>
      h("label", {},
        h("input", { type: "radio", name: `view-${this.id}`, value: name, checked: name === this.view,
          change: () => { this.view = name; this.show(this.at); this.tell(); } }),
        h("span", {}, VIEWS[name][0]))));
  }

  paintChannels(frame) {
    const { run } = this;
    const shown = frame.arrays[this.view === "difference" ? "cond" : this.view];
    const [channels, height, width] = shown?.shape ?? run.shape;
    const limit = run.limits?.[this.view] ?? 3;
    const read = (name) => frame.arrays[name] && numbers(frame.arrays[name]);
    let values = read(this.view);
    if (this.view === "difference") {
      const uncond = read("uncond");
      values = uncond && read("cond")?.map((x, i) => x - uncond[i]);
    }
    [...this.channels.children].forEach((canvas, c) => {
      const start = c * height * width;
      paintPixels(canvas, width, height, (i) => (values ? diverging(values[start + i] / limit) : [128, 128, 128]));
    });
    const title = VIEWS[this.view][1](run);
    const count = { 4: "four", 8: "eight", 16: "sixteen" }[channels] ?? String(channels);
    const stride = Math.round(run.shape[1] / height);
    const kept = stride > 1 ? ` (one in ${stride} shown each way)` : "";
    this.channelCaption.replaceChildren(
      h("b", {}, `${title}: `),
      values ? `${count} channels of ${run.shape[1]} × ${run.shape[2]}${kept}, −${tidy(limit, 2)} (blue) to ${tidy(limit, 2)} (red)`
        : "there is none after the last step");
  }

  // -- the strip

  buildStrip() {
    const { length } = this;
    const room = Math.max(8, Math.floor(this.strip.clientWidth / 30) || 26);
    const count = Math.min(length, room);
    if (this.strip.dataset.for !== `${count}/${length}`) {
      this.strip.dataset.for = `${count}/${length}`;
      this.strip.replaceChildren(...Array.from({ length: count }, (_, i) => {
        const from = Math.floor((i * length) / count);
        const to = Math.floor(((i + 1) * length) / count);
        const index = to - 1;
        return h("button", {
          type: "button", "data-from": from, "data-to": to, tabindex: -1, click: () => { this.choose(Math.min(index, this.frames.length - 1)); this.tell(); },
          "aria-label": index < this.run.total ? `step ${index + 1}` : "the finished picture",
        }, h("canvas", { class: "smooth", width: 1, height: 1 }));
      }));
      this.strip.style.setProperty("--count", count);
    }
    this.paintThumbnails();
  }

  paintThumbnails(only) {
    for (const thumbnail of this.strip.children) {
      const { from, to } = thumbnail.dataset;
      if (only !== undefined && (only < from || only >= to)) continue;
      const frame = this.frames[Math.min(to, Math.max(this.frames.length, 1 + Number(from))) - 1]; // the newest of its steps
      thumbnail.disabled = !frame;
      if (frame && (this.ahead || Number(from) <= this.furthest)) this.paintPicture(thumbnail.firstChild, frame);
      else thumbnail.firstChild.width = thumbnail.firstChild.height = 1; // not yet drawn or shown: nothing of the run before
    }
  }

  // -- the schedule

  drawCurve() {
    const { clientWidth: width, clientHeight: height } = this.curve;
    if (!width || !height || !this.run) return;
    const type = this.card.classList.contains("projector") ? 15 : 11; // pixels; as in look.css
    const [left, right, top, bottom] = [2.9 * type, width - 1.4 * type, 3.9 * type, height - 3.2 * type];
    const x = (k) => left + (k * (right - left)) / Math.max(1, this.length - 1);
    const y = (share) => bottom - share * (bottom - top);
    const points = this.frames.map((frame, k) => [x(k), y(frame.share)]);
    const line = points.map((point) => point.map((v) => v.toFixed(1)).join()).join(" ");
    const [nowX, nowY] = points[this.at];
    const share = Math.round(100 * this.frames[this.at].share);
    const before = nowX > left + 4 * type; // the curve rises: there is room above it, on its left; else above where the text ends
    const clear = before ? nowY : heightAt(points, nowX + 4.5 * type);
    const text = (kind, x, y, words, anchor = "middle") => s("text", { class: kind, x, y, "text-anchor": anchor }, words);
    this.curve.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.curve.setAttribute("aria-label", `Share of picture against step, now ${share} %`);
    this.curve.replaceChildren(
      ...[0, 0.5, 1].flatMap((share) => [
        s("line", { class: "grid", x1: left, x2: right, y1: y(share), y2: y(share) }),
        text("tick", left - 0.5 * type, y(share) + 0.36 * type, String(100 * share), "end")]),
      ...[...new Set([1, Math.round((this.run.total + 1) / 2), this.run.total])].map((step) =>
        text("tick", x(step - 1), bottom + 1.3 * type, String(step))),
      text("axis", (left + right) / 2, height - 0.6 * type, "step"),
      text("axis", 0.8 * type, 1.5 * type, width < 11 * type ? "picture, %" : "share of picture, %", "start"),
      s("polygon", { class: "area", points: `${points[0][0]},${bottom} ${line} ${points.at(-1)[0]},${bottom}` }),
      s("polyline", { class: "line", points: line }),
      s("line", { class: "now", x1: nowX, x2: nowX, y1: top, y2: bottom }),
      s("circle", { class: "dot", cx: nowX, cy: nowY, r: 5 }),
      text("here", nowX + (before ? -6 : 9), Math.min(clear - 0.7 * type, bottom - 6), `${share} %`, before ? "end" : "start"));
  }

  fit() {
    if (!this.run || !this.card.isConnected) return;
    this.buildStrip();
    this.show(this.at);
  }

  // -- moving

  /** The reader's own choice: it is kept when the next run opens. */
  choose(index) {
    this.pause();
    this.settle(index);
  }

  settle(index) {
    this.wanted = index >= this.length - 1 ? Infinity : index;
    this.show(index);
  }

  toggle() {
    this.timer ? this.pause() : this.play();
    this.tell();
  }

  /** Walk on, at most one step with each frame that the screen draws: on a slow machine a play is slow and skips nothing. */
  play() {
    if (this.timer || this.frames.length < 2) return;
    if (this.at >= this.frames.length - 1) this.settle(0);
    let before = null;
    let due = 0; // steps that should have been taken by now
    const advance = (now) => {
      this.timer = 0;
      if (!this.card.isConnected) return this.pause();
      due = Math.min(1.5, due + ((now - (before ?? now)) / 1000) * STEPS_A_SECOND * Number(this.speed.value)); // no race after a pause
      before = now;
      if (due > 0.95) { // screens do not keep time exactly: two frames of 60 a second are one step of 30
        due -= 1;
        this.settle(this.at + 1 < this.frames.length ? this.at + 1 : 0);
        if (this.at >= this.frames.length - 1 && !this.loop) {
          this.pause();
          return this.tell();
        }
      }
      this.timer = requestAnimationFrame(advance);
    };
    this.timer = requestAnimationFrame(advance);
    this.markPlaying();
  }

  pause() {
    cancelAnimationFrame(this.timer);
    this.timer = 0;
    this.markPlaying();
  }

  // -- what code sets, and what it hears

  /** Any part of {step, view, large, playing, speed, loop, ahead}; step null is the newest. What code set before is not set again: the
   *  reader may have moved on since. */
  set(state) {
    const news = Object.fromEntries(Object.entries(state).filter(([name, value]) => this.taken[name] !== value));
    this.taken = { ...this.taken, ...state };
    if ("loop" in news) this.loop = news.loop;
    if ("speed" in news) this.speed.value = String(news.speed);
    if ("view" in news) {
      this.view = news.view;
      for (const choice of this.views.querySelectorAll("input")) choice.checked = choice.value === this.view;
    }
    if ("large" in news) {
      this.large = news.large;
      for (const choice of this.choice.querySelectorAll("input")) choice.checked = choice.value === this.large;
    }
    if ("step" in news) this.choose(news.step ?? Infinity);
    else if ("view" in news || "large" in news) this.show(this.at);
    if ("ahead" in news) {
      this.ahead = news.ahead;
      this.furthest = this.at;
      this.paintThumbnails();
    }
    if ("playing" in news) news.playing && !matchMedia("(prefers-reduced-motion: reduce)").matches ? this.play() : this.pause();
  }

  tell() {
    const state = { step: this.at, view: this.view, large: this.large, playing: !!this.timer, speed: Number(this.speed.value) };
    this.taken = { ...this.taken, ...state };
    this.changed?.(state);
  }

  markPlaying() {
    this.playButton.textContent = this.timer ? "Pause" : "Play";
    this.playButton.setAttribute("aria-pressed", String(!!this.timer));
  }

  key(event) {
    if (event.target.closest("input:not([type=range], [type=radio], [type=checkbox]), select, textarea, summary") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "f" || event.key === "F") {
      event.preventDefault();
      return this.projection.toggle();
    }
    if (event.target.closest("input")) return; // a slider has its own arrows
    const places = { ArrowLeft: this.at - 1, ArrowRight: this.at + 1, Home: 0, End: this.frames.length - 1 };
    if (!(event.key in places)) return;
    event.preventDefault();
    this.choose(clamp(places[event.key], 0, this.frames.length - 1));
    this.tell();
    if (this.strip.contains(event.target)) this.strip.querySelector("[aria-current=step]")?.focus();
  }

  close() {
    this.pause();
    this.watcher.disconnect();
    for (const frame of this.frames) frame.bitmap?.close?.();
  }
}
