// The live mode: the picture follows while a control is moved. Class Live.
// At most MAX_IN_FLIGHT requests are on their way: one that is computed and one that waits. What is moved meanwhile is sent as one more
// when an answer comes, so nothing queues up, and the last settings always get their picture.

class Live {
  constructor(view) {
    this.view = view;
    this.on = false;
    this.sent = this.answers = this.shown = this.described = 0; // numbers of the last request that was sent, answered, shown, and whose whole run was shown
    this.pending = false; // something was moved since
    this.switch = h("input", { type: "checkbox", role: "switch", change: () => this.toggle() });
    this.box = h("label", { class: "live", title: "While you type or drag, the picture follows with few steps; Generate makes it with all" }, this.switch, h("span", {}, "Live"));
  }

  toggle() {
    this.on = this.switch.checked;
    this.pending = false;
    this.dim({ picture: false, rest: false });
    if (this.on) this.moved();
  }

  /** A control was moved, or a letter typed. */
  moved() {
    if (!this.on) return;
    this.pending = true;
    this.dim({ picture: true, rest: true });
    this.go();
  }

  /** Dim what is older than the controls: the picture, and the rest, which a whole run describes. */
  dim({ picture, rest }) {
    const { classList } = this.view.replay.card;
    classList.toggle("behind", rest);
    classList.toggle("shown", rest && !picture);
  }

  get newest() { return !this.pending && this.shown === this.sent; } // is what is shown of the newest settings?

  go() {
    clearTimeout(this.timer);
    if (!this.pending || !this.on) return;
    if (this.sent - this.answers >= MAX_IN_FLIGHT) {
      this.timer = setTimeout(() => { this.answers = this.sent; this.go(); }, 3000); // an answer was lost on its way
      return;
    }
    const settings = this.view.settings();
    this.view.last = JSON.stringify(settings);
    this.pending = false;
    this.sent += 1;
    this.view.requested = performance.now();
    this.view.send("run", { settings, live: this.sent });
  }

  /** The newest picture; one that comes late is not shown. */
  async show({ live, picture, seconds }) {
    if (live <= this.shown) return;
    this.shown = live;
    this.answers = Math.max(this.answers, live);
    this.go();
    const bitmap = await decodePicture(picture);
    if (live < this.shown) return bitmap.close(); // a newer one was decoded first
    const { hero, heroCaption, card, badge } = this.view.replay;
    paintBitmap(hero, bitmap);
    bitmap.close();
    card.dataset.live = live;
    if (this.newest) this.dim({ picture: false, rest: this.described < live });
    heroCaption.replaceChildren(h("b", {}, "Live: "), `few steps, ${Math.round(1000 * seconds)} ms`);
  }

  /** Is a whole run older than the newest live picture that was shown? */
  outdated(live) {
    return !!live && live < this.shown;
  }

  /** A run ended. A live one answers all requests up to its own; any other, and refused settings, answer all. */
  answered(live) {
    this.answers = this.described = live ? Math.max(this.answers, live) : this.sent;
    if (!this.pending && this.answers === this.sent) this.dim({ picture: false, rest: false });
    this.go();
  }
}
