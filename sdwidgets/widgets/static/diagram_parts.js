// What the boxes of the diagram open into, from the numbers of the run: PANELS, part -> (view) -> {title, content, after}. `after` is called
// when the content is on the page.

const para = (...children) => h("p", {}, ...children.flat());
const math = (...children) => h("p", { class: "formula" }, ...children.flat());
const it = (letter, index) => (index === undefined ? h("i", {}, letter) : h("span", {}, h("i", {}, letter), h("sub", {}, index)));
const x0 = () => it("x", "0"), xt = () => it("x", "t"), signed = (x, digits = 3) => tidy(x, digits).replace("-", "−");

/** A captioned canvas; `paint(canvas)` draws on it. */
function shown(title, words, paint, kind = "") {
  const canvas = h("canvas", { role: "img", "aria-label": [title, words].flat().map((part) => part.textContent ?? part).join(", "), width: 1, height: 1 });
  paint(canvas);
  return h("figure", { class: kind }, canvas, h("figcaption", {}, h("b", {}, ...[title].flat()), words ? h("span", {}, ...[words].flat()) : ""));
}

/** One row or map of packed numbers, blue below zero and red above. */
function paintRow(canvas, packed, row, limit, [high, wide] = [1, packed.shape[2]]) {
  const values = numbers(packed).subarray(row * high * wide, (row + 1) * high * wide);
  paintPixels(canvas, wide, high, (i) => diverging(values[i] / limit));
  canvas.classList.add("hard");
}

const PANELS = {
  text_encoder(view) {
    const { text, embeddings, guided, negative_prompt } = view.data;
    const content = [para("The tokenizer cuts the prompt into tokens, each a number of its vocabulary. The text encoder makes an ", h("b", {}, "embedding"),
      " of each: numbers that say what the token means among the others. It works once, before the first step",
      guided ? (negative_prompt ? ", and once more for the negative prompt." : ", and once more for the empty prompt.") : ".")];
    if (!text.length) return { title: "Text encoder", content: [...content, para("What it read was not recorded with this run.")] };
    text.forEach((encoder, i) => {
      content.push(h("p", { class: "facts" }, h("b", {}, encoder.class), ` · ${encoder.layers} layers · ${whole(encoder.parameters)} parameters · reads ${encoder.read} tokens · ${encoder.width} numbers a token`));
      if (embeddings?.encoder !== i) return void content.push(h("p", { class: "chips" }, ...view.chips(encoder, 40)));
      const rows = encoder.tokens.map(([kind, word, ids], row) => [word, ids.join(", "), row, kind]);
      const padded = embeddings.packed.shape[1] > rows.length;
      if (padded) rows.push([`${encoder.padding} × padding`, "", rows.length, "end"]);
      content.push(h("div", { class: "strips", role: "table", "aria-label": "Tokens and their embeddings" },
        h("div", { role: "row", class: "top" }, ...["token", "number", `first ${embeddings.packed.shape[2]} numbers of its embedding`].map((name) => h("span", { role: "columnheader" }, name))),
        ...rows.map(([word, ids, row, kind]) => {
          const canvas = h("canvas", { "aria-hidden": "true" });
          paintRow(canvas, embeddings.packed, row, embeddings.limit);
          return h("div", { role: "row" }, h("span", { role: "cell", class: kind === "text" ? null : kind, dir: "auto" }, word), h("span", { role: "cell", class: "id" }, ids), h("span", { role: "cell" }, canvas));
        })));
    });
    if (embeddings) content.push(h("p", { class: "hint" }, `The denoiser gets ${by(embeddings.shape)} numbers. Blue is below zero, red above; the colours end at ${tidy(embeddings.limit, 2)}.`,
      text.length > 1 ? " The embeddings of several encoders stand side by side or one after the other." : ""));
    return { title: text.length > 1 ? `${text.length} text encoders` : "Text encoder", content };
  },

  denoiser(view) {
    const { data, now } = view;
    const net = data.denoiser, [a, b] = now.now;
    const formulas = {
      epsilon: ["It predicts ", h("b", {}, "the noise"), " ε in ", xt(), " = ", it("a"), x0(), " + ", it("b"), "ε. So the picture in it is ", x0(), " = (", xt(), " − ", it("b"), "ε) / ", it("a")],
      v_prediction: ["It predicts ", h("b", {}, "v"), " = ", it("a"), "ε − ", it("b"), x0(), ", of ", xt(), " = ", it("a"), x0(), " + ", it("b"), "ε. So the picture in it is ", x0(), " = ", it("a"), xt(), " − ", it("b"), it("v")],
      sample: ["It predicts ", h("b", {}, "the picture"), " ", x0(), " itself, of ", xt(), " = ", it("a"), x0(), " + ", it("b"), "ε"],
      flow_prediction: ["It predicts ", h("b", {}, "the velocity"), " ", it("v"), " = ε − ", x0(), ", of ", xt(), " = ", it("a"), x0(), " + ", it("b"), "ε. So the picture in it is ", x0(), " = ", xt(), " − ", it("b"), it("v")],
    };
    const content = [math(...(formulas[data.prediction] ?? []), h("span", { class: "values" }, `at this step a = ${signed(a)}, b = ${signed(b)}`))];
    if (!net) return { title: "Denoiser", content: [...content, para("What happens inside was not recorded with this run.")] };
    const title = `${view.denoiser}: ${net.class}, ${whole(net.parameters)} parameters`;
    if (net.timestep) content.push(h("div", { class: "time" }, shown("Timestep embedding", `t = ${tidy(now.t, 0)} as ${net.timestep.width} numbers, of which ${net.timestep.packed.shape[2]} are drawn; every block gets them`,
      (canvas) => paintRow(canvas, net.timestep.packed, view.column, 127 * net.timestep.packed.scale))));
    if (!net.blocks.length) return { title, content: [...content, para("Its blocks were not heard: a network that was compiled or rewritten for speed does not tell of them.")] };
    const top = Math.max(...net.blocks.map(({ shape }) => shape[1]));
    content.push(h("div", { class: "blocks", style: `--count: ${net.blocks.length}` }, ...net.blocks.map((block) => {
      const [, high, wide] = block.maps.shape;
      const values = numbers(block.maps).subarray(view.column * high * wide, (view.column + 1) * high * wide);
      const limit = values.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-9);
      const figure = shown(block.name, by(block.shape), (canvas) => paintRow(canvas, block.maps, view.column, limit, [high, wide]));
      figure.querySelector("canvas").style.cssText = `width: ${Math.max(24, (100 * block.shape[1]) / top)}%; aspect-ratio: ${wide / high}`;
      return figure;
    })));
    const some = net.blocks.length < net.count ? `${net.blocks.length} of its ${net.count} blocks. ` : "";
    content.push(h("p", { class: "hint" }, `${some}Under each block the shape of what it gives on: channels × height × width. Drawn is one channel of many, the one that varies most over the picture, at step ${now.number}: red above zero, blue below.`,
      net.kind === "unet" ? " On the way down the grid gets coarser and the channels more; on the way up each block also gets what was kept on the way down." : " All blocks work on one grid; there is no way down and up."));
    return { title, content };
  },

  guidance(view) {
    const { data, now } = view;
    const alone = now.apart === undefined, { kind } = view, w = tidy(data.guidance ?? 1, 2);
    const without = data.negative_prompt ? "negative prompt" : "without the prompt";
    if (alone) return { title: "Guidance", content: [para("At this step guidance is off: there is one prediction.")] };
    const cell = (row) => (canvas) => view.paint(canvas, row);
    const grid = [
      shown(without, `predicted ${kind}`, cell("uncond")), shown("with the prompt", `predicted ${kind}`, cell("cond")), shown("difference", now.times > 1 ? `drawn ${tidy(now.times)} times as strong` : "", cell("difference")), shown("mixed", `at w = ${w}`, cell("guided")),
      shown(without, "as a picture, x₀", cell("x0_uncond")), shown("with the prompt", "as a picture, x₀", cell("x0_cond")), h("span"), shown("mixed", "as a picture, x₀", cell("x0")),
    ];
    for (const figure of grid) if (figure.tagName === "FIGURE") figure.querySelector("canvas").style.aspectRatio = data.aspect;
    return { title: `Guidance at w = ${w}`, content: [
      h("div", { class: "beside" }, h("div", { class: "texts" }, math("mixed = without + ", it("w"), " (with − without)", h("span", { class: "values" }, `w = ${w}; at this step the two differ by ${tidy(100 * now.apart, 1)} % of their size`)),
      para(`The ${view.denoiser} makes two predictions a step, for the prompt and ${data.negative_prompt ? "for the negative prompt" : "for the empty prompt"}. What the prompt changes is made ${w} times as large. At w = 1 nothing is mixed, and one prediction is enough.`)),
        h("div", { class: "grid-of-four" }, ...grid))] };
  },

  scheduler(view) {
    const { data, now, last } = view;
    const picture = (row, title, words) => { const figure = shown(title, words, (canvas) => (row === "x0" ? view.paintPredicted(canvas) : view.paint(canvas, row))); figure.querySelector("canvas").style.aspectRatio = data.aspect; return figure; };
    const curve = s("svg", { role: "img" });
    const points = (i) => [...data.steps.map((step) => [step.number, step.now[i]]), [data.total + 1, data.steps[last].after[i]]];
    const rest = now.rest > 0.005 ? ` and ${tidy(100 * now.rest, 1)} % of its size from earlier steps or fresh noise` : "";
    const noise = [x0(), " + ", it("b"), "ε"];
    const after = () => drawCurves(curve, {
      x: [1, data.total + 1], y: [0, 1], xTicks: [[1, "1"], [data.total + 1, "end"]], yTicks: [[0, "0"], [0.5, "0.5"], [1, "1"]], xLabel: "step", yLabel: "a (picture), b (noise)", now: now.number,
      label: `Noise level b from ${signed(data.steps[0].now[1])} at the first step to ${signed(data.steps[last].after[1])} at the end; now ${signed(now.now[1])}`,
      lines: [{ points: points(0), colour: LINES[2], strong: false, dot: [now.number, now.now[0]] }, { points: points(1), colour: LINES[1], strong: true, dot: [now.number, now.now[1]] }],
    });
    return { title: `Scheduler: ${data.scheduler}`, after, content: [
      math(it("x", "t−1"), ` = ${signed(now.keep)} `, xt(), ` ${now.add < 0 ? "−" : "+"} ${signed(Math.abs(now.add))} `, x0(), h("span", { class: "values" }, `measured on this step${rest}`)),
      para("It has no parameters: arithmetic takes a little of the noise away. It decides how many steps there are and how noisy each is."),
      h("div", { class: "taken" },
        h("div", { class: "trio" }, picture("noisy", sub("x", "t"), `a = ${signed(now.now[0])}, b = ${signed(now.now[1])}`), picture("x0", ["predicted ", ...sub("x", "0")], data.previews ? "decoded to be seen" : "in rough colours"), picture("following", sub("x", "t−1"), `a = ${signed(now.after[0])}, b = ${signed(now.after[1])}`)),
        h("figure", { class: "levels" }, curve, h("figcaption", {}, h("b", {}, "Noise level: "), "orange ", it("b"), ", green ", it("a"), ", of ", xt(), " = ", it("a"), ...noise, now.sigma === null ? "" : `; here σ = ${signed(now.sigma)}`)))] };
  },

  vae(view) {
    const { data } = view;
    const [channels, high, wide] = data.shape, [rows, columns] = data.pixels;
    const small = channels * high * wide, large = 3 * rows * columns, of = data.final.shape[1] * data.final.shape[2];
    const values = numbers(data.final);
    const channel = (k) => shown(`channel ${k}`, "", (canvas) => {
      paintPixels(canvas, data.final.shape[2], data.final.shape[1], (i) => diverging(values[k * of + i] / data.limit));
      canvas.classList.add("hard");
      canvas.style.aspectRatio = data.aspect;
    });
    const bitmap = (name) => (canvas) => { canvas.style.aspectRatio = data.aspect; if (view.bitmaps?.[name]) paintBitmap(canvas, view.bitmaps[name]); };
    const encoded = data.source
      ? [para("In this run a picture went in: the encoder made latents of it, to which noise was added, and the run began with them."),
        h("div", { class: "trio" }, shown("the picture that went in", "", bitmap("source")), ...(data.source_latents ? [shown("its latents", "in rough colours", (canvas) => { paintLinear(canvas, data.source_latents, data.factors); canvas.classList.add("hard"); canvas.style.aspectRatio = data.aspect; })] : []))]
      : [h("p", { class: "hint" }, "The encoder was not called: this run began with noise alone. In image to image a picture goes in there, and the run begins with its latents and some noise.")];
    const [name, encoder, decoder] = data.vae ?? ["VAE", null, null];
    return { title: decoder ? `VAE: ${name}, encoder ${whole(encoder)} and decoder ${whole(decoder)} parameters` : "VAE", content: [
      math(`${by([columns, rows, 3])} = ${whole(large)} numbers of a picture, ${by([channels, high, wide])} = ${whole(small)} of its latents`, h("span", { class: "values" }, `${tidy(large / small, 1)} times fewer`)),
      h("div", { class: "decoded" }, h("div", { class: `channels ${channels > 4 ? "many" : ""}`, style: `--across: ${channels > 4 ? 8 : 2}` }, ...Array.from({ length: channels }, (_, k) => channel(k))),
        h("span", { class: "to", "aria-hidden": "true" }, "→"), shown("the picture", data.decoded ? "what the decoder makes of them" : "in rough colours: it was not decoded", bitmap("picture")),
        h("div", { class: "texts" }, h("p", { class: "hint" }, `The last latents as the decoder gets them: blue is below zero, red above, and the colours end at ${tidy(data.limit, 1)}.`), ...encoded))] };
  },
};
