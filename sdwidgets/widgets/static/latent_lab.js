// The latent lab: class LatentLab, on what common.js gives. Everything was decoded before; this only shows it.

const SHOWS = { "there and back": "There and back", channels: "Channels", between: "Between two pictures" };
const DONE = { // what is done to a channel
  "as it is": () => "nothing is changed",
  off: (k) => `channel ${k} is set to zero`,
  half: (k) => `channel ${k} is halved`,
  double: (k) => `channel ${k} is doubled`,
  "turned round": (k) => `channel ${k} has its sign turned round`,
  alone: (k) => `channel ${k} is alone, the others are set to zero`,
};

class LatentLab {
  constructor() {
    this.id = Math.random().toString(36).slice(2, 8);
    this.state = { show: "there and back", channel: 0, change: "as it is", wipe: 0.5, place: 0.5 };
    this.changed = null;
    const picture = (kind) => h("canvas", { role: "img", class: kind, width: 1, height: 1 });
    const figure = (canvas, caption, ...more) => h("figure", {}, canvas, ...more, caption);
    const slider = (name, label) => h("input", {
      type: "range", min: 0, max: 1, step: 0.01, "aria-label": label, input: (event) => this.choose({ [name]: Number(event.target.value) }),
    });

    this.tabs = h("div", { class: "views", role: "radiogroup", "aria-label": "What the lab shows" });
    this.pictures = Object.fromEntries(["wiped", "error", "changedTo", "unchanged", "mixed", "faded", "first", "last"].map((name) => [name, picture("smooth")]));
    this.captions = Object.fromEntries(["wiped", "error", "latent", "changedTo", "unchanged", "channels", "mixed", "faded"].map((name) => [name, h("figcaption")]));
    this.wipe = slider("wipe", "How much of the original is uncovered");
    this.place = slider("place", "How far from the first picture to the second");
    this.scale = h("div", { class: "heat" });
    this.latent = h("div", { class: "cells" });
    this.tiles = h("div", { class: "cells", role: "radiogroup", "aria-label": "Which channel is changed" });
    this.changes = h("div", { class: "views", role: "radiogroup", "aria-label": "What is done to the channel" });
    this.status = h("output", { class: "status" });

    const { pictures: p, captions: c } = this;
    this.panels = {
      "there and back": h("div", { class: "lab" },
        h("div", { class: "lead" }, figure(p.wiped, c.wiped, this.wipe)),
        h("div", { class: "side" }, figure(p.error, c.error, this.scale), h("figure", {}, this.latent, c.latent))),
      channels: h("div", { class: "lab" },
        h("div", { class: "lead" }, figure(p.changedTo, c.changedTo)),
        h("div", { class: "side" }, h("figure", {}, this.tiles, this.changes, c.channels), h("div", { class: "small" }, figure(p.unchanged, c.unchanged)))),
      between: h("div", { class: "lab pair" },
        figure(p.mixed, c.mixed), figure(p.faded, c.faded),
        h("div", { class: "way" }, p.first, this.place, p.last, this.status)),
    };
    this.badge = h("span", { class: "badge" });
    this.card = h("section", { class: "card", "aria-label": "Latent lab" },
      h("header", { class: "heading" }, this.tabs), ...Object.values(this.panels), h("footer", {}, this.badge));
  }

  // -- data in

  async open(data) {
    this.data = data;
    const { names, pixels, shape } = data;
    const [before, after] = [pixels, shape].map((sides) => sides.reduce((a, b) => a * b));
    this.ratio = tidy(before / after);
    this.badge.textContent = `${pixels[1]} × ${pixels[0]} pixels, ${before.toLocaleString("en")} numbers · latent ${shape.join(" × ")}, `
      + `${after.toLocaleString("en")} numbers · ${this.ratio} times fewer`;
    for (const canvas of Object.values(this.pictures)) canvas.style.aspectRatio = data.aspect;
    this.radios(this.tabs, "show", data.shows, (name) => SHOWS[name]);
    this.radios(this.changes, "change", data.changes, (name) => name);
    this.tabs.hidden = data.shows.length < 2;
    this.buildTiles();
    this.buildScale();
    this.draw();
    this.bitmaps = await bitmaps({
      originals: data.originals, reconstructions: data.reconstructions, error: data.error, changed: data.changed, between: data.between ?? [],
    });
    if (data.between) {
      for (const [canvas, k] of [[this.pictures.first, 0], [this.pictures.last, 1]]) {
        paintBitmap(canvas, this.bitmaps.originals[k]);
        canvas.setAttribute("aria-label", names[k]);
      }
    }
    this.draw();
  }

  set(state) {
    this.state = { ...this.state, ...state };
    if (this.data) this.draw();
  }

  choose(state) {
    this.set(state);
    this.changed?.(state);
  }

  // -- parts that are built once

  radios(box, key, values, words) {
    box.replaceChildren(...values.map((value) => h("label", {},
      h("input", { type: "radio", name: `${key}-${this.id}`, value, change: () => this.choose({ [key]: value }) }),
      h("span", {}, words(value)))));
  }

  buildTiles() {
    const [channels, height, width] = this.data.shape;
    const many = channels > 4;
    for (const box of [this.latent, this.tiles]) {
      box.style.setProperty("--across", many ? 8 : channels);
      box.classList.toggle("many", many);
    }
    const tile = (k) => {
      const canvas = h("canvas", { class: "hard", role: "img", "aria-label": `channel ${k}` });
      canvas.style.aspectRatio = width / height;
      paintChannel(canvas, this.data.latents[0], k, this.data.limit);
      return canvas;
    };
    const all = Array.from({ length: channels }, (_, k) => k);
    this.latent.replaceChildren(...all.map(tile));
    this.tiles.replaceChildren(...all.map((k) => h("label", { class: "tile" },
      h("input", { type: "radio", name: `channel-${this.id}`, value: k, "aria-label": `channel ${k}`, change: () => this.choose({ channel: k }) }),
      tile(k), h("span", {}, String(k)))));
  }

  buildScale() {
    const { error_scale: colours, error_top: top } = this.data;
    const bar = h("div", { class: "ramp" });
    bar.style.background = `linear-gradient(to right, ${colours.join(", ")})`;
    this.scale.replaceChildren(h("span", {}, "0"), bar, h("span", {}, `${tidy(top)} levels of 255`));
  }

  // -- drawing

  draw() {
    const { state } = this;
    for (const [name, panel] of Object.entries(this.panels)) panel.hidden = name !== state.show;
    for (const [box, value] of [[this.tabs, state.show], [this.changes, state.change], [this.tiles, String(state.channel)]])
      for (const input of box.querySelectorAll("input")) input.checked = input.value === value;
    for (const [input, value] of [[this.wipe, state.wipe], [this.place, state.place]]) {
      input.value = value;
      input.style.setProperty("--done", `${100 * value}%`);
    }
    ({ "there and back": () => this.drawRoundTrip(), channels: () => this.drawChannels(), between: () => this.drawBetween() })[state.show]();
    this.card.dataset.ready = String(!!this.bitmaps);
  }

  drawRoundTrip() {
    const { data, state, pictures, captions, bitmaps: maps } = this;
    if (maps) {
      paintWipe(pictures.wiped, maps.originals[0], maps.reconstructions[0], state.wipe);
      paintBitmap(pictures.error, maps.error);
    }
    const share = Math.round(100 * state.wipe);
    this.wipe.setAttribute("aria-valuetext", `${share} % original`);
    pictures.wiped.setAttribute("aria-label", `${data.names[0]}: the original on the left ${share} %, the decoded picture on the right`);
    captions.wiped.replaceChildren(h("b", {}, "Left of the line: "), "the original. ", h("b", {}, "Right of it: "), "the picture after encoding and decoding.");
    pictures.error.setAttribute("aria-label", "Error of the decoded picture, pixel by pixel");
    const decibels = data.psnr === null ? "no error at all" : `${data.psnr.toFixed(1)} dB peak signal to noise`;
    captions.error.replaceChildren(h("b", {}, "What was lost: "), `${tidy(data.error_mean)} levels on average, ${decibels}.`);
    captions.latent.replaceChildren(h("b", {}, "The latents between: "), `${data.shape[0]} channels of ${data.shape[1]} × ${data.shape[2]}, ${this.scaleWords()}.`);
  }

  drawChannels() {
    const { data, state, pictures, captions, bitmaps: maps } = this;
    const { channel, change } = state;
    const none = change === "as it is";
    if (maps) {
      paintBitmap(pictures.changedTo, none ? maps.reconstructions[0] : maps.changed[change][channel]);
      paintBitmap(pictures.unchanged, maps.reconstructions[0]);
    }
    [...this.tiles.querySelectorAll("canvas")].forEach((canvas, k) => {
      const factor = change === "alone" ? Number(k === channel) : k === channel && !none ? data.factors[change] : 1;
      paintChannel(canvas, data.latents[0], k, data.limit, factor);
    });
    const words = DONE[change](channel);
    pictures.changedTo.setAttribute("aria-label", `The decoded picture when ${words}`);
    const moved = none ? "" : ` The picture moves by ${tidy(data.moved[change][channel])} levels of 255 on average.`;
    captions.changedTo.replaceChildren(h("b", {}, "Decoded: "), `${words}.${moved}`);
    pictures.unchanged.setAttribute("aria-label", "The decoded picture, unchanged");
    captions.unchanged.replaceChildren(h("b", {}, "For comparison: "), "decoded unchanged.");
    captions.channels.replaceChildren(h("b", {}, "What the decoder gets: "), `choose a channel, then what is done to it; ${this.scaleWords()}.`);
  }

  drawBetween() {
    const { data, state, pictures, captions, bitmaps: maps } = this;
    const last = data.between.length - 1;
    const k = Math.round(state.place * last);
    const share = k / last; // the pixels are mixed in the same proportion, or the two could not be compared
    if (maps) {
      paintBitmap(pictures.mixed, maps.between[k]);
      paintMix(pictures.faded, maps.reconstructions[0], maps.reconstructions[1], share);
    }
    const [a, b] = data.names;
    const words = `${Math.round(100 * (1 - share))} % ${a}, ${Math.round(100 * share)} % ${b}`;
    this.place.step = 1 / last;
    this.place.value = share;
    this.place.style.setProperty("--done", `${100 * share}%`);
    this.place.setAttribute("aria-valuetext", words);
    this.status.textContent = `${words} · ${tidy(data.apart[k])} levels of 255 between the two`;
    pictures.mixed.setAttribute("aria-label", `Mixed in latents and decoded: ${words}`);
    pictures.faded.setAttribute("aria-label", `Mixed in pixels: ${words}`);
    captions.mixed.replaceChildren(h("b", {}, "Mixed in latents, "), "then decoded once.");
    captions.faded.replaceChildren(h("b", {}, "Mixed in pixels: "), "one fades into the other.");
  }

  scaleWords() { return `−${tidy(this.data.limit, 2)} (blue) to ${tidy(this.data.limit, 2)} (red)`; }
}

/** WebP bytes, in any nest of lists and objects, as bitmaps in the same nest. */
async function bitmaps(value) {
  if (value instanceof Uint8Array) return decodePicture(value);
  if (Array.isArray(value)) return Promise.all(value.map(bitmaps));
  const pairs = await Promise.all(Object.entries(value).map(async ([key, item]) => [key, await bitmaps(item)]));
  return Object.fromEntries(pairs);
}

function paintChannel(canvas, packed, channel, limit, factor = 1) {
  const [, height, width] = packed.shape;
  const values = numbers(packed);
  paintPixels(canvas, width, height, (i) => diverging((factor * values[channel * height * width + i]) / limit));
}

/** `left` as far as `share`, `right` from there on, and a thin line between, on a canvas that is finer than the pictures. */
function paintWipe(canvas, left, right, share) {
  const fine = Math.max(1, Math.ceil(640 / right.width));
  const width = (canvas.width = fine * right.width);
  const height = (canvas.height = fine * right.height);
  const context = canvas.getContext("2d");
  const x = share * width;
  context.drawImage(right, 0, 0, width, height);
  if (x <= 0) return;
  context.drawImage(left, 0, 0, share * left.width, left.height, 0, 0, x, height);
  if (x >= width) return;
  for (const [colour, edge] of [["#ffffff", x - 2], ["#000000", x]]) {
    context.fillStyle = colour;
    context.fillRect(edge, 0, 2, height);
  }
}

function paintMix(canvas, first, second, share) {
  paintBitmap(canvas, first);
  const context = canvas.getContext("2d");
  context.globalAlpha = share;
  context.drawImage(second, 0, 0);
  context.globalAlpha = 1;
}
