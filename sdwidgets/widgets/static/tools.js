// What can be done with the picture that is shown: copy it as code, save it with its run, open such a file. Class Tools: buttons
// for the footer, a panel above it, and a place to drop files.

const PIECE = 512 * 1024; // bytes in one message, either way; as in parcel.py

class Tools {
  /** `send(message, bytes)` goes to the kernel; `say(sentence)` tells the reader; `name()` is for a file. */
  constructor(send, say, name) {
    Object.assign(this, { send, say, name });
    this.pieces = []; // of a file that comes
    this.giving = null; // {file, at}: one that goes
    this.copy = h("button", { type: "button", class: "quiet", "aria-expanded": "false", title: "The diffusers call that makes this picture",
      click: () => (this.panel.hidden ? send({ kind: "code" }) : this.hideCode()) }, "Copy as code");
    this.save = h("button", { type: "button", class: "quiet", title: "A PNG that carries its settings and every step of its run",
      click: () => { this.pieces = []; send({ kind: "passport", start: 0 }); } }, "Save picture");
    const chosen = h("input", { type: "file", accept: "image/png,text/html", hidden: true, "aria-label": "Picture or page that carries a run",
      change: () => { if (chosen.files[0]) this.give(chosen.files[0]); chosen.value = ""; } });
    this.open = h("button", { type: "button", class: "quiet", title: "A picture that was saved here, or an exported page: shows its run again",
      click: () => chosen.click() }, "Open picture");
    this.buttons = h("span", { class: "tools" }, this.copy, this.save, this.open, chosen);
    this.text = h("pre", { tabindex: 0, "aria-label": "Program" });
    this.told = h("span", { role: "status" });
    this.panel = h("div", { class: "code", hidden: true }, h("p", {}, this.told,
      h("button", { type: "button", class: "quiet", click: () => { this.hideCode(); this.copy.focus(); } }, "Close")), this.text);
  }

  hideCode() {
    this.panel.hidden = true;
    this.copy.setAttribute("aria-expanded", "false");
  }

  /** Show the program, and put it on the clipboard where the page is allowed to. */
  async showCode(text) {
    this.panel.hidden = false;
    this.copy.setAttribute("aria-expanded", "true");
    this.text.textContent = text;
    this.told.textContent = "";
    try {
      await navigator.clipboard.writeText(text);
      this.told.textContent = "Copied. It makes this picture with diffusers alone.";
    } catch { // no clipboard here: an unsafe address, or a frame without the right
      getSelection().selectAllChildren(this.text);
      this.told.textContent = "This makes the picture with diffusers alone. It is selected: copy it with Ctrl+C or ⌘C.";
    }
  }

  // ---- files

  /** A piece of the picture; the next one is asked for when this one is here. */
  keep({ start, size, piece }) {
    if (start === 0) this.pieces = [];
    this.pieces.push(piece.slice());
    if (start + piece.length < size) return void this.send({ kind: "passport", start: start + piece.length });
    const link = h("a", { href: URL.createObjectURL(new Blob(this.pieces, { type: "image/png" })), download: `${this.name()}.png` });
    this.pieces = [];
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  /** Files that are dropped on `element` are given to the kernel. */
  listen(element) {
    const over = (event, on) => {
      if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
      event.preventDefault();
      event.stopPropagation(); // or JupyterLab takes it for a file to upload
      element.classList.toggle("dropping", on);
    };
    element.addEventListener("dragenter", (event) => over(event, true));
    element.addEventListener("dragover", (event) => over(event, true));
    element.addEventListener("dragleave", (event) => { if (!element.contains(event.relatedTarget)) over(event, false); });
    element.addEventListener("drop", (event) => {
      over(event, false);
      if (event.dataTransfer.files[0]) this.give(event.dataTransfer.files[0]);
    });
  }

  /** Send a file, a piece at a time: the kernel answers each with a message of the kind "file". */
  give(file, purpose = "run", then = () => {}) {
    if (this.giving) return void (this.next = [file, purpose, then]); // one at a time; of those that wait, the newest
    this.giving = { file, purpose, then, at: 0 };
    this.givePiece();
  }

  async givePiece() {
    const { file, purpose, at } = this.giving;
    try {
      const bytes = await file.slice(at, at + PIECE).arrayBuffer();
      this.giving.at += bytes.byteLength;
      this.send({ kind: "file", purpose, name: file.name, size: file.size, start: at }, bytes);
    } catch {
      this.giving = null;
      this.say("The browser could not read this file.");
    }
  }

  given({ done, refused }) {
    if (!this.giving) return;
    if (!done) return void this.givePiece();
    const { then } = this.giving;
    this.giving = null;
    if (refused) this.say(refused);
    else then();
    if (this.next) this.give(...this.next);
    this.next = null;
  }
}
