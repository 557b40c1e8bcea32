// What a run starts from: the task, and for all but the first a picture, a mask or a border, and a strength. Class SourceField.

class SourceField {
  /** `view` is the PlaygroundView: it makes fields and knobs, sends files, and asks for runs. */
  constructor(view) {
    this.view = view;
    this.has = false; // a picture
    const id = view.replay.id;
    this.tasks = h("div", { class: "views tasks", role: "radiogroup", "aria-label": "Task" });
    const task = view.field("task", { input: this.tasks, read: () => this.task, write: (value) => this.choose(value) });
    this.sentence = h("p", { class: "hint" });
    this.pad = new MaskPad(() => this.sendMask());
    this.strength = view.knob({ name: "strength", label: "Strength", min: 0.05, max: 1, step: 0.05, hint: "how much of the path from noise it walks: 1 keeps nothing" }, `strength-${id}`);
    const sides = ["Left", "Top", "Right", "Bottom"].map((side) => h("input", { type: "number", class: "value", min: 0, max: 200, step: 5, "aria-label": `Border: ${side.toLowerCase()}, percent`, change: () => view.changed() }));
    this.sides = h("div", { class: "numbers-row", role: "group", "aria-label": "Border" }, ...sides.flatMap((input, i) => [h("span", {}, ["left", "top", "right", "bottom"][i]), input]), h("span", {}, "% of the picture"));
    const border = view.field("border", { input: this.sides, read: () => sides.map((input) => input.value), write: (values) => values.forEach((value, i) => { sides[i].value = value; }) });
    this.border = h("div", {}, this.sides, border.error, border.hint);
    const source = view.field("source", { input: this.pad.picture });
    const mask = view.field("mask", { input: this.pad.mask });
    const chosen = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp", hidden: true, "aria-label": "Picture to start from",
      change: () => { if (chosen.files[0]) this.sendSource(chosen.files[0]); chosen.value = ""; } });
    const buttons = h("div", { class: "buttons" },
      h("button", { type: "button", click: () => view.send("use_last") }, "Use the last picture"),
      h("button", { type: "button", click: () => chosen.click() }, "Choose a picture"), chosen);
    this.empty = h("p", { class: "nothing" }, "No picture yet: choose, drop or paste one");
    this.small = h("div", {}, this.pad.box, this.empty);
    this.large = h("figure", { class: "painted", hidden: true }, h("figcaption", {}, h("b", {}, "Paint here "), "what is made anew; the prompt says what the whole picture shows")); // beside the result
    view.replay.main.prepend(this.large);
    this.panel = h("div", { class: "source", hidden: true }, this.small,
      h("div", { class: "aside" }, buttons, source.error, this.pad.tools, mask.error, this.border, this.strength));
    this.box = h("div", { class: "start" }, this.sentence, task.error, this.panel);
  }

  /** [[name, label, sentence], ...]: what there is to choose. */
  offer(tasks) {
    this.sentences = Object.fromEntries(tasks.map(([name, , sentence]) => [name, sentence]));
    this.tasks.replaceChildren(...tasks.map(([name, label]) => h("label", {},
      h("input", { type: "radio", name: `task-${this.view.replay.id}`, value: name, change: () => this.chosen(name) }), h("span", {}, label))));
  }

  /** The reader's own choice. */
  chosen(name) {
    this.choose(name);
    this.view.fields.strength.write(STRENGTHS[name]);
    this.view.show_errors({});
    this.view.live.moved();
  }

  choose(name) {
    this.task = name;
    for (const input of this.tasks.querySelectorAll("input")) input.checked = input.value === name;
    this.sentence.textContent = name === "text" ? "" : this.sentences?.[name] ?? "";
    this.panel.hidden = name === "text";
    this.border.hidden = name !== "outpaint";
    this.place();
  }

  /** A picture that is painted on stands large beside the result, any other small among the controls. */
  place() {
    const painted = this.has && this.task === "inpaint";
    (painted ? this.large : this.small).prepend(this.pad.box);
    this.large.hidden = !painted;
    this.small.hidden = painted;
    this.pad.tools.hidden = this.pad.mask.hidden = !painted;
    this.view.replay.card.classList.toggle("painting", painted);
  }

  /** PNG files from the kernel, or null. */
  async open({ source, mask }) {
    this.has = !!source;
    this.empty.hidden = this.has;
    this.pad.box.hidden = !this.has;
    this.place();
    if (!source) return;
    const read = (bytes) => decodePicture(bytes, "image/png");
    this.pad.open(await read(source));
    if (mask) this.pad.lay(await read(mask));
    if (this.task !== "inpaint") this.view.live.moved();
  }

  sendSource(file) {
    this.view.tools.upload(file, "source");
  }

  /** A picture without a run came in by drop, paste or Open: the next run starts from it. */
  taken() {
    if (this.task === "text") this.chosen("image");
  }

  async sendMask() {
    this.view.tools.upload(await this.pad.file(), "mask", () => this.view.live.moved());
  }
}
