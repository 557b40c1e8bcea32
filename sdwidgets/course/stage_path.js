// Steps a presenter through the cells tagged `stage` of the notebook around it, in JupyterLab and Jupyter Notebook. All of it lives on
// the page: nothing in the notebook is changed, and Leave takes it away again. `data-windowed-list-index` is JupyterLab's own.

const CSS = `
  :host { display: block; container-type: inline-size; }
  .row { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; color: var(--jp-ui-font-color1, inherit);
    font: 14px/1.4 var(--jp-ui-font-family, system-ui, sans-serif); }
  .row.bar { padding: 8px 16px; border-top: 1px solid var(--jp-border-color1, #bbb); background: var(--jp-layout-color2, #eee);
    font-variant-numeric: tabular-nums; }
  button { padding: 4px 12px; min-height: 32px; border: 1px solid var(--jp-border-color1, #bbb); border-radius: 8px; font: inherit;
    color: inherit; background: var(--jp-layout-color1, #fff); cursor: pointer; }
  button:hover:not(:disabled) { border-color: var(--jp-ui-font-color2, #777); }
  button:disabled { opacity: 0.5; cursor: default; }
  :focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: 2px; }
  button[aria-pressed="true"] { border-color: var(--jp-brand-color1, #1976d2); box-shadow: inset 0 0 0 1px var(--jp-brand-color1, #1976d2); }
  kbd { margin: 0 4px; padding: 0 5px; border: 1px solid var(--jp-border-color2, #ccc); border-radius: 4px; font: inherit; font-size: 12px; white-space: nowrap; }
  p { margin: 0; max-width: 60em; }
  .place { min-width: 10.5em; }
  .time { min-width: 5.5em; font-weight: 600; }
  .time[data-near] { padding: 2px 8px; border-radius: 6px; color: #5c1a00; background: #ffd9c7; }
  .end { margin-left: auto; }
  @container (max-width: 900px) { .run { display: none; } }
  @container (max-width: 700px) {
    kbd { display: none; } .row.bar { padding: 6px 8px; gap: 6px; font-size: 13px; } .place, .time { min-width: 0; } .end { margin-left: 0; } button { padding: 4px 7px; }
  }
`;

const BAR = `
  <div class="row bar" role="toolbar" aria-label="Stage path">
    <button class="back">Back<kbd>Page Up</kbd></button>
    <button class="next">Next<kbd>Page Down</kbd></button>
    <span class="place" role="status"></span>
    <span class="run"><kbd>Ctrl Enter</kbd>runs the cell</span>
    <span class="time" role="timer"></span>
    <button class="pause">Pause</button>
    <button class="hide end" aria-pressed="false">Hide the rest</button>
    <button class="leave">Leave</button>
  </div>`;

const frame = () => new Promise((done) => requestAnimationFrame(done));

/** An element whose inside is ours alone: no style of the page gets in, and JupyterLab leaves its keys alone. */
function shadow(markup) {
  const host = document.createElement("div");
  host.attachShadow({ mode: "open" }).innerHTML = `<style>${CSS}</style>${markup}`;
  host.setAttribute("data-lm-suppress-shortcuts", "true");
  return host;
}

/** 95000 -> "1:35 left", -5000 -> "0:05 over". */
function clock(milliseconds) {
  const seconds = Math.ceil(Math.abs(milliseconds) / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")} ${milliseconds < 0 ? "over" : "left"}`;
}

class Path {
  /** `cells`: the notebook's model of its cells, as they are now; `panel`: the element of the whole notebook. */
  constructor(panel, cells, minutes, left) {
    Object.assign(this, { panel, cells, left: 60000 * minutes, since: performance.now(), onLeave: left });
    this.host = shadow(BAR);
    this.host.className = "sdwidgets-stage";
    this.host.style.cssText = "position: absolute; inset: auto 0 0 0; z-index: 20;";
    this.style = document.createElement("style");
    panel.append(this.host, this.style);
    const on = { back: () => this.go(-1), next: () => this.go(1), pause: () => this.pause(), hide: () => this.hide(), leave: () => this.leave() };
    for (const [name, act] of Object.entries(on)) this.part(name).addEventListener("click", act);
    this.keys = (event) => this.key(event);
    this.paint = () => this.draw();
    document.addEventListener("keydown", this.keys, true);
    cells.changed.connect(this.paint);
    this.timer = setInterval(this.paint, 250);
    this.go(1);
  }

  part(name) { return this.host.shadowRoot.querySelector(`.${name}`); }
  get viewport() { return this.panel.querySelector(".jp-WindowedPanel-viewport"); }
  get path() { return [...this.cells].flatMap((cell, i) => (cell.getMetadata("tags") ?? []).includes("stage") ? [i] : []); }
  node(index) { return this.viewport.querySelector(`:scope > [data-windowed-list-index="${index}"]`); }
  get paused() { return this.since === null; }
  get rest() { return this.paused ? this.left : this.left - (performance.now() - this.since); }

  /** The cell that is selected; of a long notebook it may be off the page just now. */
  get here() {
    const active = this.viewport.querySelector(":scope > .jp-mod-active");
    if (active) this.last = Number(active.dataset.windowedListIndex);
    return this.last ?? -1;
  }

  key(event) {
    if (!["PageDown", "PageUp"].includes(event.key) || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    if (!this.host.offsetParent) return; // another tab is in front
    event.preventDefault();
    event.stopImmediatePropagation();
    this.go(event.key === "PageDown" ? 1 : -1);
  }

  async go(direction) {
    const target = direction > 0 ? this.path.find((i) => i > this.here) : this.path.findLast((i) => i < this.here);
    if (target === undefined) return this.draw();
    const node = await this.reach(target, direction);
    this.lost = !node;
    if (node) {
      for (const kind of ["mousedown", "mouseup"]) node.dispatchEvent(new MouseEvent(kind, { bubbles: true, cancelable: true }));
      for (let i = 0; i < 3; i++) { // cells above get their height when they are first drawn
        node.scrollIntoView({ block: "start" });
        await frame();
      }
    }
    this.draw();
  }

  /** The element of a cell; JupyterLab may put it on the page only when it is near. */
  async reach(index, direction) {
    const scroller = this.panel.querySelector(".jp-WindowedPanel-outer");
    for (let i = 0; i < 200 && !this.node(index); i++) {
      scroller.scrollTop += direction * scroller.clientHeight;
      await frame();
    }
    return this.node(index);
  }

  pause() {
    [this.left, this.since] = [this.rest, this.paused ? performance.now() : null];
    this.part("pause").textContent = this.paused ? "Go on" : "Pause";
    this.draw();
  }

  hide() {
    this.hidden = !this.hidden;
    this.part("hide").setAttribute("aria-pressed", String(this.hidden));
    this.draw();
    this.node(this.here)?.scrollIntoView({ block: "start" });
  }

  draw() {
    const { path, here, rest } = this, place = path.filter((i) => i <= here).length;
    const say = (name, text) => { if (this.part(name).textContent !== text) this.part(name).textContent = text; };
    say("place", this.lost ? "The next stage cell is not on the page: scroll down to it." : `Stage cell ${place} of ${path.length}`);
    say("time", clock(rest));
    this.part("time").toggleAttribute("data-near", rest < 60000);
    this.part("back").disabled = !path.some((i) => i < here);
    this.part("next").disabled = !path.some((i) => i > here);
    const others = `#${this.panel.id} .jp-WindowedPanel-viewport > .jp-Cell${path.map((i) => `:not([data-windowed-list-index="${i}"])`).join("")}`;
    const css = `#${this.panel.id} .jp-WindowedPanel-inner { padding-bottom: 60px; }${this.hidden ? ` ${others} { display: none !important; }` : ""}`;
    if (this.style.textContent !== css) this.style.textContent = css;
  }

  leave() {
    clearInterval(this.timer);
    document.removeEventListener("keydown", this.keys, true);
    this.cells.changed.disconnect(this.paint);
    this.host.remove();
    this.style.remove();
    this.onLeave();
  }
}

export default {
  render({ model, el }) {
    const jupyter = document.querySelector(".jp-NotebookPanel") !== null;
    const card = shadow(jupyter ? `<div class="row"><button class="present">Present</button><p></p></div>` : `<div class="row"><p></p></div>`);
    const button = card.shadowRoot.querySelector("button"), words = card.shadowRoot.querySelector("p");
    words.textContent = jupyter ? `for presenters: steps through the cells of the stage, ${model.get("minutes")} minutes` : model.get("elsewhere");
    el.append(card);
    let path = null;
    const present = () => {
      const panel = el.closest(".jp-NotebookPanel"), cells = model.widget_manager?.context?.model?.cells;
      if (!panel || !cells?.changed) {
        words.textContent = "This program keeps the notebook's cells from its widgets, so the stage path cannot find them.";
      } else if (![...cells].some((cell) => (cell.getMetadata("tags") ?? []).includes("stage"))) {
        words.textContent = "No cell of this notebook is tagged stage, so there is no path to step through.";
      } else {
        button.disabled = true;
        path = new Path(panel, cells, model.get("minutes"), () => { path = null; button.disabled = false; });
      }
    };
    button?.addEventListener("click", present);
    return () => path?.leave();
  },
};
