// A picture, and over it a mask that is drawn by mouse, finger or pen, or set by numbers. Class MaskPad.

class MaskPad {
  /** `changed()` is called when a stroke has ended. */
  constructor(changed) {
    this.changed = changed;
    this.stroke = null; // where the pointer was last, in pixels of the picture
    this.picture = h("canvas", { class: "smooth", role: "img", "aria-label": "The picture that it starts from" });
    this.mask = h("canvas", { class: "over hard", role: "img", tabindex: 0, "aria-label": "The mask: what is painted anew. By keyboard it is set by numbers",
      pointerdown: (event) => this.begin(event), pointermove: (event) => this.go(event), pointerleave: () => { this.ring.hidden = true; },
      pointerup: () => this.end(), pointercancel: () => this.end() });
    this.ring = h("div", { class: "ring", hidden: true }); // the brush, around the pointer
    this.past = []; // masks before the last strokes
    this.box = h("div", { class: "pad", keydown: (event) => this.key(event) }, this.picture, this.mask, this.ring);
    const id = Math.random().toString(36).slice(2, 8);
    const mode = (value, text) => h("label", {}, h("input", { type: "radio", name: `mode-${id}`, value, checked: value === "draw" }), h("span", {}, text));
    this.modes = h("div", { class: "views", role: "radiogroup", "aria-label": "What the brush does" }, mode("draw", "Mark"), mode("erase", "Erase"));
    this.size = h("input", { type: "range", min: 2, max: 50, value: 18, "aria-label": "Brush size", title: "Keys [ and ]", input: () => this.resize(0) });
    this.resize(0);
    this.undoing = h("button", { type: "button", class: "quiet", title: "Ctrl+Z", disabled: true, click: () => this.undo() }, "Undo");
    const number = (label, value) => h("input", { type: "number", class: "value", min: 0, max: 100, value, "aria-label": `${label}, percent` });
    this.numbers = [number("Left", 25), number("Top", 25), number("Width", 50), number("Height", 50)];
    this.tools = h("div", { class: "brush" }, this.modes, h("label", {}, "Brush ", this.size),
      this.undoing, h("button", { type: "button", class: "quiet", click: () => { this.remember(); this.clear(); this.changed(); } }, "Clear the mask"),
      h("details", {}, h("summary", {}, "By numbers"), h("div", { class: "numbers-row" },
        ...["left", "top", "width", "height"].flatMap((word, i) => [h("span", {}, word), this.numbers[i]]), h("span", {}, "%"),
        h("button", { type: "button", click: () => this.rectangle() }, "Apply"))));
  }

  /** Show this picture, a bitmap, without a mask. */
  open(bitmap) {
    paintBitmap(this.picture, bitmap);
    Object.assign(this.mask, { width: bitmap.width, height: bitmap.height }); // which clears it
    this.past = [];
    this.undoing.disabled = true;
    this.box.style.aspectRatio = bitmap.width / bitmap.height;
  }

  /** Show a mask, a bitmap: white where to paint anew. */
  lay(bitmap) {
    const context = this.pen("draw");
    context.drawImage(bitmap, 0, 0);
    const pixels = context.getImageData(0, 0, this.mask.width, this.mask.height);
    for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set([...INK, pixels.data[i] > 127 ? 255 : 0], i);
    context.putImageData(pixels, 0, 0);
  }

  /** The brush's size, in percent of the picture. */
  resize(by) {
    this.size.value = Number(this.size.value) + by;
    this.size.style.setProperty("--done", `${(100 * (this.size.value - 2)) / 48}%`);
    this.ring.style.width = `${this.size.value}%`;
  }

  key(event) {
    const by = { "[": -4, "]": 4 }[event.key];
    if (by) this.resize(by);
    else if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey) this.undo();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Keep the mask as it is, for `undo`. */
  remember() {
    const { width, height } = this.mask;
    this.past.push(this.pen().getImageData(0, 0, width, height));
    if (this.past.length > 12) this.past.shift();
    this.undoing.disabled = false;
  }

  undo() {
    if (!this.past.length) return;
    this.pen("draw").putImageData(this.past.pop(), 0, 0);
    this.undoing.disabled = !this.past.length;
    this.changed();
  }

  clear() {
    this.mask.getContext("2d").clearRect(0, 0, this.mask.width, this.mask.height);
  }

  /** The mask as a PNG file, white on black. */
  async file() {
    const { width, height } = this.mask;
    const drawn = this.mask.getContext("2d").getImageData(0, 0, width, height).data;
    const canvas = document.createElement("canvas");
    paintPixels(canvas, width, height, (i) => (drawn[4 * i + 3] > 127 ? [255, 255, 255] : [0, 0, 0]));
    return new File([await new Promise((done) => canvas.toBlob(done, "image/png"))], "mask.png", { type: "image/png" });
  }

  pen(mode = this.modes.querySelector("input:checked").value) {
    const context = this.mask.getContext("2d", { willReadFrequently: true });
    context.globalCompositeOperation = mode === "erase" ? "destination-out" : "source-over";
    context.fillStyle = context.strokeStyle = `rgb(${INK})`;
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = (this.size.value / 100) * Math.max(this.mask.width, this.mask.height);
    return context;
  }

  begin(event) {
    if (event.button) return; // the first button, a finger or a pen
    event.preventDefault();
    try { this.mask.setPointerCapture(event.pointerId); } catch { /* a pointer that was made by a script */ }
    this.mask.focus({ preventScroll: true });
    this.remember();
    this.stroke = this.at(event);
    this.line(this.stroke, this.stroke);
  }

  go(event) {
    const box = this.mask.getBoundingClientRect();
    this.ring.hidden = event.pointerType === "touch";
    Object.assign(this.ring.style, { left: `${event.clientX - box.left}px`, top: `${event.clientY - box.top}px` });
    if (!this.stroke) return;
    for (const each of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) {
      const point = this.at(each);
      this.line(this.stroke, point);
      this.stroke = point;
    }
  }

  end() {
    if (!this.stroke) return;
    this.stroke = null;
    this.changed();
  }

  line(from, to) {
    const context = this.pen();
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(to[0] + 0.01, to[1]);
    context.stroke();
  }

  at(event) {
    const box = this.mask.getBoundingClientRect();
    return [((event.clientX - box.left) * this.mask.width) / box.width, ((event.clientY - box.top) * this.mask.height) / box.height];
  }

  rectangle() {
    const [left, top, width, height] = this.numbers.map((input) => clamp(Number(input.value) || 0, 0, 100) / 100);
    this.remember();
    this.pen().fillRect(left * this.mask.width, top * this.mask.height, width * this.mask.width, height * this.mask.height);
    this.changed();
  }
}

const INK = [255, 64, 129]; // the mask's colour on the page, which few pictures have
