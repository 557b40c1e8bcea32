// The live widget: controls above the scrubber of replay.js (which stands before this text), messages to and from the kernel.
// The page keeps no truth about settings: what is typed goes to the kernel, and the kernel's sentence comes back.

const KNOBS = [
  { name: "seed", label: "Seed", min: 0, max: 99, step: 1, hint: "which noise it starts from" },
  { name: "num_inference_steps", label: "Steps", min: 1, max: 50, step: 1, hint: "how many times it looks again" },
  { name: "guidance_scale", label: "Guidance", min: 0, max: 15, step: 0.5, hint: "how strictly it follows the prompt" },
];

class PlaygroundView {
  constructor(model, host) {
    this.model = model;
    this.client = Math.random().toString(36).slice(2);
    this.seen = 0; // number of the last message from the kernel
    this.delivery = "push";
    this.busy = false;
    this.stoppable = false; // the button stops a run: one that was not made by the live mode, until its picture is there
    this.lost = false; // a message that should have come by itself came only after a poll
    this.heard = performance.now();
    this.replay = new Replay({ heading: false });
    this.fields = {}; // name -> {read, write, error, hint, inputs}
    this.timers = {};
    this.live = new Live(this);
    this.tools = new Tools((...message) => this.send(...message), (sentence) => this.say(sentence), () => this.fileName(), () => this.source.taken());
    this.build();
    this.host = host;
    this.unmount = mountShadow(host, CSS, this.replay.card);
    this.listen = (message, buffers) => this.receive(message, buffers);
    model.on("msg:custom", this.listen);
    this.heartbeat = setInterval(() => this.pollIfSilent(), 100);
    this.send("hello");
    if (model.widget_manager?.kernel) this.alive(); // else, as in an exported page that stored its widgets, only an answer shows that there is one
    else this.timers.hello = setTimeout(() => { host.hidden = !this.greeted; }, 5000);
  }

  /** There is a kernel: this view is shown, and not what was saved. */
  alive() {
    this.host.hidden = false;
    this.died ??= markLive(this.host, this.model);
  }

  close() {
    clearInterval(this.heartbeat);
    Object.values(this.timers).forEach(clearTimeout);
    this.model.off("msg:custom", this.listen);
    this.unmount();
    this.died?.();
    this.replay.close();
  }

  // ---- building the controls

  build() {
    const { replay } = this;
    const id = (name) => `${name}-${replay.id}`;
    this.go = h("button", { type: "button", class: "go", click: () => this.goOrStop() }, "Generate");
    this.chips = h("div", { class: "tokens", role: "status", "aria-label": "How the prompt is read" });
    this.words = new Words(this);
    this.more = h("button", { type: "button", class: "quiet", "aria-expanded": "false", "aria-controls": id("negative"),
      click: () => this.showNegative(this.negative.hidden, true) }, "+ negative prompt");

    const text = (name, label, attributes) => {
      const input = h("textarea", { id: id(name), rows: 1, class: "text", dir: "auto", autocomplete: "off", spellcheck: "false", ...attributes });
      return this.field(name, { input, read: () => input.value, write: (value) => { input.value = value ?? ""; } });
    };
    const prompt = text("prompt", "Prompt", { "aria-label": "Prompt", placeholder: "What should the picture show?", input: () => { this.typed(); this.live.moved(); } });
    const negative = text("negative_prompt", "Negative prompt", { input: () => this.live.moved() });
    this.negative = h("div", { class: "field negative", hidden: true, id: id("negative") },
      h("label", { for: id("negative_prompt") }, "Negative prompt: what it should keep away from"), negative.input, negative.error, negative.hint);

    this.knobs = h("div", { class: "knobs", id: id("knobs") }, ...KNOBS.map((knob) => this.knob(knob, id(knob.name))));
    this.seeds = new SeedButtons(this);
    this.fold = h("button", { type: "button", class: "quiet settings", "aria-controls": id("knobs"), click: () => this.unfold(this.knobs.hidden) });
    const select = h("select", { id: id("scheduler"), change: () => this.changed() });
    const scheduler = this.field("scheduler", { input: select, read: () => select.value, write: (value) => { select.value = value ?? ""; } });
    this.sentence = h("p", { class: "hint sentence" });
    select.addEventListener("change", () => this.explainScheduler());
    scheduler.box = h("div", { class: "knob" }, h("label", { for: id("scheduler") }, "Scheduler"), select, scheduler.error);
    this.knobs.append(scheduler.box, this.sentence);

    this.source = new SourceField(this);
    this.history = new HistoryStrip(this);
    this.compare = new Compare(this);
    const controls = h("div", { class: "controls", keydown: (event) => this.enter(event) },
      this.source.tasks, h("div", { class: "ask" }, h("div", {}, prompt.input, prompt.error), this.go),
      this.chips, prompt.hint, this.negative, this.words.examples, this.words.unfamiliar, this.source.box, h("div", { class: "first" }, this.fold, this.live.box), this.knobs);
    this.bar = h("div");
    this.progress = h("div", { class: "progress", role: "progressbar", "aria-label": "Progress of the run", "aria-valuemin": 0 }, this.bar);
    this.failure = h("p", { class: "note", role: "alert", hidden: true });
    this.waiting = h("div", { class: "waiting" }, "No picture yet. Press Generate.");
    replay.card.setAttribute("aria-label", "Playground");
    replay.card.classList.add("empty");
    replay.card.classList.add("playground");
    const scene = replay.main.parentNode;
    const desk = h("div", { class: "desk" }, controls, this.history.box);
    scene.before(desk);
    desk.append(scene);
    scene.prepend(this.progress, this.failure, this.waiting);
    scene.append(replay.warning); // said below the pictures here, where it moves nothing
    replay.badge.after(this.tools.buttons);
    this.tools.listen(replay.card);
    replay.badge.parentNode.before(this.compare.box, this.tools.panel);
    this.unfold(true);
    const started = new ResizeObserver(([{ contentRect: { width } }]) => { // once it is laid out: where the page is small, the pictures come first
      if (!width) return;
      this.unfold(width >= 780 || (width >= 640 && innerHeight >= 800));
      started.disconnect();
    });
    started.observe(replay.card);
  }

  /** Show seed, steps, guidance and scheduler, or one line that says what they are. */
  unfold(open) {
    this.knobs.hidden = !open;
    this.fold.setAttribute("aria-expanded", String(open));
    this.replay.card.classList.toggle("folded", !open);
    this.sayFolded();
  }

  sayFolded() {
    const [seed, steps, guidance, scheduler] = ["seed", "num_inference_steps", "guidance_scale", "scheduler"].map((name) => this.fields[name].read());
    this.fold.textContent = this.knobs.hidden ? `Settings: ${[`seed ${seed}`, `${steps} steps`, `guidance ${guidance}`, scheduler].filter(Boolean).join(" · ")}` : "Settings";
  }

  /** In a text, Enter makes the picture: a prompt has no lines. */
  enter(event) {
    if (event.key !== "Enter" || event.isComposing || !event.target.closest("textarea, input:not([type=radio], [type=checkbox], [type=range])")) return;
    event.preventDefault();
    this.requestRun();
  }

  /** A label, a slider for the usual values, and a box in which any value can be typed. */
  knob({ name, label, hint, ...range }, id) {
    const digits = range.step < 0.1 ? 2 : range.step < 1 ? 1 : 0;
    const box = h("input", { id, type: "text", class: "value", inputmode: "decimal", autocomplete: "off", input: () => follow(), change: () => this.live.moved() }); // a number that was typed waits for Enter
    const slider = h("input", { type: "range", ...range, "aria-label": label, title: hint,
      input: () => { box.value = Number(slider.value).toFixed(digits); fill(); this.changed(); } });
    const fill = () => slider.style.setProperty("--done", `${(100 * (slider.value - range.min)) / (range.max - range.min)}%`);
    const follow = () => { if (Number.isFinite(Number(box.value))) slider.value = box.value; fill(); };
    const field = this.field(name, {
      input: box, also: slider, read: () => box.value.trim(),
      write: (value) => { box.value = typeof value === "number" ? value.toFixed(Number.isInteger(value) ? digits : Math.max(digits, 2)).replace(/(\.\d)0$/, "$1") : value ?? ""; follow(); },
    });
    field.top = h("div", { class: "top" }, h("label", { for: id, title: hint }, label), box);
    field.box = h("div", { class: "knob" }, field.top, slider, field.error, field.hint);
    return field.box;
  }

  field(name, parts) {
    const error = h("p", { class: "error", role: "alert", id: `error-${name}-${this.replay.id}`, hidden: true });
    return (this.fields[name] = { ...parts, error, hint: h("p", { class: "hint", hidden: true }) });
  }

  showNegative(show, focus = false) {
    this.negative.hidden = !show;
    this.more.setAttribute("aria-expanded", String(show));
    this.more.textContent = `${show ? "−" : "+"} negative prompt`;
    if (show && focus) this.fields.negative_prompt.input.focus();
  }

  explainScheduler() {
    const label = this.fields.scheduler.read();
    this.sentence.replaceChildren(h("b", {}, `${label || "Scheduler"}: `), this.sentences?.[label] ?? "");
  }

  // ---- to the kernel

  /** Only what the protocol has. `bytes`: the buffer beside the message. */
  send(kind, fields = {}, bytes) {
    const known = PROTOCOL.toKernel[kind];
    const foreign = Object.keys(fields).find((name) => !known?.includes(name) && !known?.includes(`${name}?`));
    if (!known || foreign) throw new Error(`the protocol has no message ${kind} ${foreign ?? ""}`);
    this.model.send({ kind, client: this.client, ...fields }, undefined, bytes ? [bytes] : []);
  }

  /** At most one message of a kind in `pause` milliseconds; the last one always goes. */
  soon(kind, pause, action) {
    clearTimeout(this.timers[kind]);
    this.timers[kind] = setTimeout(action, pause);
  }

  settings() {
    return Object.fromEntries(Object.entries(this.fields).filter(([, field]) => field.read).map(([name, field]) => [name, field.read()]));
  }

  /** A control was moved: request a run, unless it would have the settings of the last request. */
  changed() {
    if (this.live.on) return this.live.moved();
    this.soon("run", 50, () => { if (JSON.stringify(this.settings()) !== this.last) this.requestRun(); });
  }

  requestRun() {
    clearTimeout(this.timers.run);
    if (this.busy && this.delivery === "sync") return void (this.again = true); // the kernel cannot listen now
    const settings = this.settings();
    this.last = JSON.stringify(settings);
    this.requested = performance.now();
    this.replay.wanted = Infinity; // a new run is followed to its end
    this.send("run", { settings });
    this.sayFolded();
  }

  goOrStop() {
    if (this.stoppable) this.send("stop");
    else this.requestRun();
  }

  typed() {
    this.chips.classList.add("stale");
    this.soon("tokens", 120, () => this.tokenize());
  }

  tokenize() {
    this.send("tokenize", { text: this.fields.prompt.read() });
  }

  /** Poll when nothing came for a while: what a thread sends may be lost on the way. */
  pollIfSilent() {
    const silence = performance.now() - this.heard;
    const unanswered = this.requested && performance.now() - this.requested > 3000;
    if (unanswered) this.say("The kernel does not answer: it is busy with another cell, or was stopped; then run the notebook up to here again.");
    if (this.busy && this.delivery !== "sync" && silence > (this.delivery === "pull" ? 150 : 1000)) this.poll();
  }

  /** One poll at a time: a kernel that is busy with a cell answers them all in a row, when it is done. */
  poll() {
    if (this.polled && performance.now() - this.polled < 5000) return;
    this.polled = performance.now();
    this.send("poll", { seen: this.seen, lost: this.lost });
  }

  // ---- from the kernel: one method on_NAME for each message of the protocol

  receive(message, buffers) {
    if (!(message.kind in PROTOCOL.toPage)) return;
    this.heard = performance.now();
    this.delivery = message.delivery ?? this.delivery;
    const { number } = message;
    if (number === undefined) { // to one view, or to all
      if (message.client !== this.client && message.client !== "") return;
    } else {
      if (number <= this.seen || this.greeted !== true) return;
      if (!message.again && number > this.seen + 1 && message.kind !== "queued") return this.poll(); // one before it is missing: both, in order
      if (message.again && this.polled) this.lost = true; // it did not come by itself
      this.seen = number;
    }
    this[`on_${message.kind}`](decodeBinary(message, buffers));
  }

  on_state({ seen, settings, schedulers, tasks, hidden, badge, source, mask, history, examples }) {
    this.greeted = true;
    this.alive();
    this.seen = seen;
    this.sentences = Object.fromEntries(schedulers);
    this.fields.scheduler.input.replaceChildren(...schedulers.map(([label]) => h("option", { value: label }, label || "as it came")));
    for (const name of hidden) if (this.fields[name]?.box) this.fields[name].box.hidden = true;
    this.more.hidden = hidden.includes("negative_prompt");
    this.replay.badge.textContent = badge;
    this.words.offer(examples);
    this.source.offer(tasks);
    this.source.open({ source, mask });
    history.forEach((entry) => this.history.add(entry));
    this.history.mark(history.map((entry) => entry.number), history.at(-1)?.number);
    this.write(settings);
  }

  on_source(message) {
    this.show_errors({}); // which may have been that there is none
    this.source.open(message);
  }

  write(settings) {
    for (const [name, value] of Object.entries(settings)) this.fields[name].write(value);
    if (settings.negative_prompt) this.showNegative(true);
    this.explainScheduler();
    this.sayFolded();
    this.tokenize();
    this.last = JSON.stringify(this.settings());
  }

  on_code({ text }) {
    this.tools.showCode(text);
  }

  on_picture_file(message) {
    this.tools.download(message);
  }

  on_upload_reply(message) {
    this.tools.uploaded(message);
  }

  /** From the prompt and the seed. */
  fileName() {
    const prompt = this.replay.run?.prompt.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 40);
    return [prompt || "picture", this.replay.run?.line.match(/seed \d+/)?.[0].replace(" ", "-")].filter(Boolean).join("-");
  }

  on_poll_reply() {
    this.polled = 0;
  }

  on_tokens({ text, tokens, cut, count, limit, marks, unfamiliar }) {
    if (text !== this.fields.prompt.read()) return; // the reader typed on
    const chip = (kind) => ([piece, pieces]) => h("span", { class: kind, dir: "auto" }, piece,
      ...(pieces > 1 ? [h("small", { title: `one character, ${pieces} tokens` }, `× ${pieces}`)] : []));
    const tally = (chips) => chips.reduce((sum, [, pieces]) => sum + pieces, 0);
    const unread = Math.max(0, count - limit);
    const more = (there, shown) => (there > shown ? ["…"] : []);
    this.chips.classList.remove("stale");
    this.words.explain(unfamiliar);
    this.chips.replaceChildren(
      ...(limit ? [h("span", { class: "count", title: `${marks} of them mark the start and the end` }, `${count} of ${limit} tokens`)] : []),
      ...tokens.map(chip("chip")), ...more(Math.min(count, limit) - marks, tally(tokens)),
      ...(unread ? [h("span", {}, `the model does not read the last ${unread}: `), ...cut.map(chip("chip cut")), ...more(unread, tally(cut))] : []),
      this.more);
  }

  on_queued({ client, settings, notes, live }) {
    if (client !== this.client) this.write(settings); // requested by code, or by another view of this widget
    this.requested = 0;
    this.show_errors({ "": notes[""] });
    this.replay.pause();
    this.seeds.used(settings.seed);
    for (const [name, field] of Object.entries(this.fields)) {
      field.hint.hidden = !notes[name] || (name === "prompt" && settings.prompt.trim() !== "");
      field.hint.textContent = notes[name] ?? "";
    }
    if (live && client === this.client) { // what blinks ten times a second only disturbs
      this.busy = true;
      return this.offerStop(false);
    }
    this.running(true);
    this.advance(0, 1, "starting");
  }

  on_live(message) {
    this.live.show(message);
  }

  on_errors({ errors }) {
    this.requested = 0;
    this.live.answered();
    this.show_errors(errors);
  }

  show_errors(errors) {
    for (const [name, { error, input }] of Object.entries(this.fields)) {
      error.hidden = !errors[name];
      error.textContent = errors[name] ?? "";
      input.setAttribute("aria-invalid", String(!!errors[name]));
      errors[name] ? input.setAttribute("aria-describedby", error.id) : input.removeAttribute("aria-describedby");
    }
    if (errors.negative_prompt) this.showNegative(true);
    this.say(errors[""]);
  }

  say(sentence) {
    this.failure.hidden = !sentence;
    this.failure.textContent = sentence ?? "";
  }

  on_frames({ run, first, frames }) {
    if (run) this.open({ limits: this.replay.run?.limits, ...run }); // the colours of the last run, until its own are known
    if (!this.replay.run) return;
    this.replay.add(first, frames);
    const done = first + frames.length;
    this.advance(done, this.replay.run.total, `step ${done} of ${this.replay.run.total}`);
  }

  on_compared(message) {
    this.compare.open(message);
  }

  on_result({ run, entry, numbers, live }) {
    if (this.live.outdated(live)) return;
    this.open(run);
    this.replay.card.dataset.live = live;
    if (entry) this.history.add(entry);
    this.history.mark(numbers, entry?.number);
    if (live) return;
    this.tools.hideCode(); // which is of the run before
    this.offerStop(false);
    this.advance(1, 1, "decoding every step");
  }

  open(run) {
    this.replay.card.classList.remove("empty");
    this.waiting.hidden = true;
    this.replay.open(run);
  }

  on_pictures({ first, pictures }) {
    pictures.forEach((bytes, i) => this.replay.decode(first + i, bytes));
  }

  on_done({ badge, failure, live }) {
    this.running(false);
    this.live.answered(live);
    this.replay.badge.textContent = badge;
    this.say(failure);
    if (this.again) {
      this.again = false;
      this.requestRun();
    }
  }

  running(busy) {
    this.busy = busy;
    this.offerStop(busy && this.delivery !== "sync");
    this.replay.card.setAttribute("aria-busy", String(busy));
    this.progress.classList.toggle("on", busy);
    if (!busy) this.waiting.textContent = "No picture yet. Press Generate.";
  }

  offerStop(stoppable) {
    this.stoppable = stoppable;
    this.go.textContent = stoppable ? "Stop" : "Generate";
    this.go.classList.toggle("stop", stoppable);
  }

  advance(done, total, stage) {
    this.bar.style.width = `${(100 * done) / total}%`;
    this.progress.setAttribute("aria-valuemax", total);
    this.progress.setAttribute("aria-valuenow", done);
    this.progress.setAttribute("aria-valuetext", stage);
    this.waiting.textContent = `Working: ${stage} …`;
    this.replay.badge.textContent = `Working: ${stage}`;
  }
}

export default {
  render({ model, el }) {
    const host = document.createElement("div");
    el.append(host);
    const view = new PlaygroundView(model, host);
    return () => view.close();
  },
};
