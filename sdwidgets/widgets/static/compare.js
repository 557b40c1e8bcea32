// The last runs as a strip, and two of them side by side or laid over each other. Classes HistoryStrip and Compare.

class HistoryStrip {
  constructor(view) {
    this.view = view;
    this.current = 0; // number of the run that is shown
    this.tiles = new Map(); // number -> button
    this.choosing = h("button", { type: "button", class: "quiet", "aria-pressed": "false", title: "Then choose the other one",
      click: () => this.choose(this.choosing.getAttribute("aria-pressed") === "false") }, "Compare with …");
    this.row = h("div", { class: "past", role: "group", "aria-label": "The last runs" });
    this.box = h("div", { class: "history", hidden: true, keydown: (event) => { if (event.key === "Escape") this.choose(false); } }, h("p", {}, h("span", {}, h("b", {}, "The last runs"), this.instruction = h("span", { role: "status" })), this.choosing), this.row);
  }

  /** Whether the next click on a tile compares it, instead of showing it again. */
  choose(on) {
    this.choosing.setAttribute("aria-pressed", String(on));
    this.instruction.textContent = on ? ": choose the one to compare with" : "";
  }

  async add({ number, thumbnail, title }) {
    const canvas = h("canvas", { class: "smooth", width: 1, height: 1 });
    const tile = h("button", { type: "button", title, "aria-label": `Run ${number}: ${title}`, click: () => this.clicked(number) }, canvas);
    if (this.tiles.has(number)) this.tiles.get(number).replaceWith(tile);
    else this.row.append(tile);
    this.tiles.set(number, tile);
    paintBitmap(canvas, await decodePicture(thumbnail));
  }

  /** Which runs there still are, and which is shown. */
  mark(numbers, current) {
    for (const [number, tile] of this.tiles) {
      if (!numbers.includes(number)) { tile.remove(); this.tiles.delete(number); }
      tile.setAttribute("aria-current", String(number === current));
    }
    this.current = current;
    this.box.hidden = this.tiles.size < 2;
    this.choose(false);
    if (current === Math.max(...numbers)) this.row.scrollLeft = this.row.scrollWidth;
  }

  clicked(number) {
    const comparing = this.choosing.getAttribute("aria-pressed") === "true";
    this.choose(false);
    if (!comparing) this.view.send("restore", { run: number });
    else if (number !== this.current) this.view.send("compare", { numbers: [this.current, number] });
  }
}

class Compare {
  constructor(view) {
    this.view = view;
    this.left = h("canvas", { class: "smooth", role: "img" });
    this.right = h("canvas", { class: "smooth", role: "img" });
    this.line = h("div", { class: "wipe-line" });
    this.range = h("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "Where the two pictures meet", input: () => this.wipe() });
    this.pane = h("div", { class: "wipe", pointerdown: (event) => this.drag(event), pointermove: (event) => { if (event.buttons & 1) this.drag(event); } }, this.right, this.left, this.line);
    this.table = h("div", { class: "differences" });
    const ways = h("div", { class: "views", role: "radiogroup", "aria-label": "How they are compared" }, ...["Side by side", "Laid over"].map((label, i) => h("label", {},
      h("input", { type: "radio", name: `compare-${view.replay.id}`, checked: !i, change: () => this.lay(i === 1) }), h("span", {}, label))));
    this.box = h("div", { class: "compare", hidden: true, role: "group", "aria-label": "Two runs compared" }, h("div", {}, ways, this.pane, this.range), this.table);
    this.lay(false);
  }

  async open({ numbers, pictures, differences, same_seed: sameSeed }) {
    const [left, right] = await Promise.all(pictures.map((bytes) => decodePicture(bytes)));
    paintBitmap(this.left, left);
    paintBitmap(this.right, right);
    this.pane.style.setProperty("--aspect", left.width / left.height);
    const [a, b] = numbers;
    this.left.setAttribute("aria-label", `Run ${a}`);
    this.right.setAttribute("aria-label", `Run ${b}`);
    const rows = differences.map(([name, before, after]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", { dir: "auto" }, before), h("td", { dir: "auto" }, after)));
    const again = h("button", { type: "button", click: () => this.view.send("reseed", { run: b, like: a }) }, `Make run ${b} with run ${a}’s seed`);
    this.table.replaceChildren(
      ...(rows.length ? [h("table", {}, h("tr", {}, h("th", {}, "What differs"), h("th", { scope: "col" }, `left: run ${a}`), h("th", { scope: "col" }, `right: run ${b}`)), ...rows)] : [h("p", {}, "Their settings are the same.")]),
      sameSeed ? h("p", { class: "hint" }, "Both start from the same noise.") : h("p", { class: "hint" }, "They start from different noise, so more differs than the settings tell. ", again),
      h("button", { type: "button", click: () => { this.box.hidden = true; } }, "Close the comparison"));
    this.box.hidden = false;
    this.wipe();
    this.box.scrollIntoView({ block: "nearest" });
  }

  /** One over the other, with a line between them that is moved; else side by side. */
  lay(over) {
    this.pane.classList.toggle("beside", !over);
    this.range.hidden = !over;
  }

  wipe() {
    const share = Number(this.range.value);
    this.left.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    this.line.style.left = `${share}%`;
    this.range.style.setProperty("--done", `${share}%`);
    this.range.setAttribute("aria-valuetext", `${share} % of the left picture`);
  }

  drag(event) {
    if (this.range.hidden) return;
    const box = this.pane.getBoundingClientRect();
    this.range.value = (100 * (event.clientX - box.left)) / box.width;
    this.wipe();
  }
}
