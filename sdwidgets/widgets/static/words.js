// What the model knows: words that it never saw, under the prompt, and prompts that it draws well. Class Words.

class Words {
  /** `view` is the PlaygroundView. Both rows are empty where the model's folder says nothing of its words. */
  constructor(view) {
    this.view = view;
    this.unfamiliar = h("div", { class: "offers", role: "status", hidden: true });
    this.examples = h("div", { class: "offers examples", role: "group", "aria-label": "Prompts that it draws well", hidden: true });
  }

  /** unfamiliar: [[word, number of training captions, [near words]], ...]. A click puts a near word in its place. */
  explain(unfamiliar) {
    this.unfamiliar.hidden = !unfamiliar.length;
    const row = (title, words, after = "") => (words.length ? [h("span", {}, title), ...words.flatMap(([word, count, near], i) => [
      h("b", { dir: "auto" }, word, i < words.length - 1 && !near.length ? "," : ""), ...(count ? [h("span", {}, count === 1 ? "(in one caption)" : `(in ${count} captions)`)] : []), ...(near.length ? [h("span", {}, "– near:")] : []),
      ...near.map((other) => h("button", { type: "button", "aria-label": `${other} instead of ${word}`, click: () => this.replace(word, other) }, other)),
    ]), h("span", {}, after)] : []);
    this.unfamiliar.replaceChildren(...row("Never seen in its training:", unfamiliar.filter(([, count]) => !count), "so the picture may not show it."), ...row("Rarely seen:", unfamiliar.filter(([, count]) => count)));
  }

  replace(word, other) {
    const escaped = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const whole = new RegExp(`(?<![\\p{L}\\p{M}\\p{N}])${escaped}(?![\\p{L}\\p{M}\\p{N}])`, "giu");
    const { prompt } = this.view.fields;
    prompt.write(prompt.read().replace(whole, () => other));
    prompt.input.focus();
    this.view.tokenize();
    this.view.live.moved();
  }

  /** examples: prompts. The first are shown, and of the others one by chance. */
  offer(examples) {
    this.examples.hidden = !examples.length;
    const chip = (text, click, title) => h("button", { type: "button", title, click }, text);
    this.examples.replaceChildren(h("span", {}, "Try:"), ...examples.slice(0, 2).map((prompt) => chip(prompt, () => this.draw(prompt), "It draws this well")),
      chip("Surprise me", () => this.surprise(examples), "Another prompt and another seed"));
  }

  surprise(examples) {
    const others = examples.filter((prompt) => prompt !== this.view.fields.prompt.read());
    this.view.fields.seed.write(anySeed());
    this.draw(others[Math.floor(Math.random() * others.length)] ?? examples[0]);
  }

  draw(prompt) {
    this.view.fields.prompt.write(prompt);
    this.view.tokenize();
    this.view.live.on ? this.view.live.moved() : this.view.requestRun();
  }
}

const SEEDS = 10_000; // short enough to be read aloud
const anySeed = () => Math.floor(Math.random() * SEEDS);

/** Two buttons beside the seed: another one by chance, and back to the one before. */
class SeedButtons {
  constructor(view) {
    this.view = view;
    this.before = this.now = null;
    const icon = (label, click, ...shapes) => h("button", { type: "button", class: "icon", title: label, "aria-label": label, click }, s("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, ...shapes));
    const dot = (x, y) => s("circle", { cx: x, cy: y, r: 0.7, fill: "currentcolor" });
    const dice = icon("Another seed, by chance", () => this.take(anySeed()), s("rect", { x: 1.5, y: 1.5, width: 13, height: 13, rx: 3 }), dot(5, 5), dot(11, 5), dot(8, 8), dot(5, 11), dot(11, 11));
    this.back = icon("The seed before", () => this.take(this.before), s("path", { d: "M3 5.5h6.5a3.75 3.75 0 0 1 0 7.5H5M5.5 2.5l-3 3 3 3" }));
    this.back.disabled = true;
    view.fields.seed.top.children[0].after(h("span", { class: "icons" }, dice, this.back));
  }

  take(seed) {
    this.view.fields.seed.write(seed);
    this.view.changed();
  }

  /** A run of this seed was accepted. */
  used(seed) {
    if (seed === this.now) return;
    [this.before, this.now] = [this.now, seed];
    this.back.disabled = this.before === null;
  }
}
