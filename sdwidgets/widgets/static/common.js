// What every view of this folder draws with: elements, themes, numbers to colours. No imports and no exports: Python puts this text in
// front of a view's own script (html.bundle_scripts). All text reaches the page through text nodes.

// ---- small helpers ------------------------------------------------------------------------------------------------

/** An element with attributes (functions become listeners, null and false are left out) and children. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Bytes travel as base64 in a page ({b64}) and as buffers beside a widget's message ({at}). */
function decodeBinary(value, buffers = []) {
  if (Array.isArray(value)) return value.map((item) => decodeBinary(item, buffers));
  if (value === null || typeof value !== "object") return value;
  if ("b64" in value) return Uint8Array.from(atob(value.b64), (c) => c.charCodeAt(0));
  if ("at" in value) {
    const view = buffers[value.at];
    return view instanceof DataView ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength) : new Uint8Array(view);
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, decodeBinary(item, buffers)]));
}

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const tidy = (x, digits = 1) => String(Number(x.toFixed(digits)));
const sub = (letter, index) => [letter, h("sub", {}, index)];

/** Projector mode and full screen of a card: their two buttons, in `buttons`, and what the key F does, `toggle()`. */
class Projection {
  constructor(card, title) {
    this.card = card;
    const button = (label, hint, click) => h("button", { type: "button", class: "quiet", "aria-pressed": "false", title: hint, click }, label);
    this.mode = button("Projector mode", title, () => this.show(!card.classList.contains("projector")));
    this.full = button("Full screen (F)", "Projector mode on the whole screen; the key Escape ends it", () => this.toggle());
    this.buttons = h("span", { class: "modes" }, this.mode, this.full);
    card.addEventListener("fullscreenchange", () => this.show(this.isFullScreen));
  }

  get isFullScreen() { return this.card.getRootNode().fullscreenElement === this.card; }

  show(on) {
    this.card.classList.toggle("projector", on);
    this.mode.setAttribute("aria-pressed", String(on));
    this.full.setAttribute("aria-pressed", String(this.isFullScreen));
    this.full.textContent = this.isFullScreen ? "Leave full screen (F)" : "Full screen (F)";
  }

  /** Where a page may not have the whole screen, projector mode alone. */
  async toggle() {
    if (this.isFullScreen) return document.exitFullscreen();
    try { await this.card.requestFullscreen(); } catch { this.show(!this.card.classList.contains("projector")); }
  }
}

/** Light or dark, as the page around us is; in JupyterLab the colours themselves come from its CSS variables. */
function followTheme(card) {
  const surroundings = [document.documentElement, document.body];
  const read = () => {
    const { body, documentElement } = document;
    const jupyter = body.dataset.jpThemeLight;
    const dark =
      jupyter !== undefined ? jupyter === "false"
      : documentElement.hasAttribute("theme") ? documentElement.getAttribute("theme") === "dark"
      : body.dataset.vscodeThemeKind ? !/light/.test(body.dataset.vscodeThemeKind)
      : matchMedia("(prefers-color-scheme: dark)").matches;
    card.dataset.theme = dark ? "dark" : "light";
    card.toggleAttribute("data-jupyter", jupyter !== undefined);
  };
  const observer = new MutationObserver(read);
  for (const element of surroundings) observer.observe(element, { attributes: true });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", read);
  read();
  return () => {
    observer.disconnect();
    matchMedia("(prefers-color-scheme: dark)").removeEventListener("change", read);
  };
}

/** The height in pixels that a reader sees at once, as --screen of `card`: pictures are no taller than leaves room for their controls.
 *  A frame that is as high as its content, as Colab's is, does not know it: there it is the screen's, less the browser's own bars. */
function followHeight(card) {
  const read = () => card.style.setProperty("--screen", `${window.top === window ? innerHeight : Math.max(480, screen.availHeight - 160)}px`);
  addEventListener("resize", read);
  read();
  return () => removeEventListener("resize", read);
}

/** A shadow root with our style: nothing of the page leaks in, nothing of ours leaks out. Returns what ends its listening. */
function mountShadow(host, css, card) {
  const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  root.replaceChildren(h("style", {}, css), card);
  host.setAttribute("data-lm-suppress-shortcuts", "true"); // or JupyterLab takes the arrow keys, and "d d" deletes a cell
  const ends = [followTheme(card), followHeight(card)];
  return () => ends.forEach((end) => end());
}

/** Say that this widget is alive: what its cell keeps for a page without a kernel hides (saved.html). Returns what ends it. */
function markLive(host, model) {
  const say = () => window.dispatchEvent(new Event("sdwidgets-live"));
  host.setAttribute("data-sdwidgets-live", model.get("saved_as"));
  say();
  return () => { host.removeAttribute("data-sdwidgets-live"); say(); };
}

// ---- from numbers to colours ---------------------------------------------------------------------------------------

// Eleven stops of ColorBrewer's RdBu from blue to red (colour-blind safe; Apache-2.0, Cynthia Brewer), white at zero.
const DIVERGING = [
  [5, 48, 97], [33, 102, 172], [67, 147, 195], [146, 197, 222], [209, 229, 240], [247, 247, 247],
  [253, 219, 199], [244, 165, 130], [214, 96, 77], [178, 24, 43], [103, 0, 31],
];

function diverging(x) { // x in [-1, 1]
  const position = ((clamp(x, -1, 1) + 1) / 2) * (DIVERGING.length - 1);
  const low = Math.min(Math.floor(position), DIVERGING.length - 2);
  return DIVERGING[low].map((a, i) => a + (DIVERGING[low + 1][i] - a) * (position - low));
}

/** {shape, scale, data}: int8 numbers and the size of one unit; gives floats, channel after channel. */
function numbers(packed) {
  const bytes = new Int8Array(packed.data.buffer, packed.data.byteOffset, packed.data.byteLength);
  return Float32Array.from(bytes, (x) => x * packed.scale);
}

function paintPixels(canvas, width, height, colour) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const [red, green, blue] = colour(i);
    pixels.data.set([red, green, blue, 255], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
}

/** The channels of a latent times a small matrix, plus a bias: nearly the picture, at a millionth of the decoder's cost. */
function paintLinear(canvas, packed, factors) {
  const [channels, height, width] = packed.shape;
  const values = numbers(packed);
  const size = height * width;
  paintPixels(canvas, width, height, (i) =>
    [0, 1, 2].map((c) => {
      let x = factors[channels][c];
      for (let k = 0; k < channels; k++) x += values[k * size + i] * factors[k][c];
      return (clamp(x, -1, 1) + 1) * 127.5;
    }));
}

/** The bytes of a picture's file as a bitmap, a promise. */
const decodePicture = (bytes, type = "image/webp") => createImageBitmap(new Blob([bytes], { type }));

function paintBitmap(canvas, bitmap) {
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
}
