// What can be done with the picture that is shown: copy it as code, save it with its run, open such a file. Class Tools: buttons
// for the footer, a panel above it, and a place to drop files.

/** A button says for two seconds what it did. */
function confirm(button, words) {
  const label = (button.dataset.label ??= button.textContent);
  button.textContent = words;
  clearTimeout(Number(button.dataset.timer));
  button.dataset.timer = setTimeout(() => { button.textContent = label; }, 2000);
}

class Tools {
  /** `send(kind, fields, bytes)` goes to the kernel; `say(sentence)` shows the reader an error; `name()` is for a file; `taken()`: a picture became the source. */
  constructor(send, say, name, taken) {
    Object.assign(this, { send, say, name, taken });
    this.chunks = []; // of a picture that is downloaded
    this.uploading = null; // {file, purpose, then, start}
    this.copy = h("button", { type: "button", class: "quiet", "aria-expanded": "false", title: "The diffusers call that makes this picture",
      click: () => (this.panel.hidden ? send("export_code") : this.hideCode()) }, "Copy as code");
    this.save = h("button", { type: "button", class: "quiet", title: "A PNG that carries its settings and every step of its run",
      click: () => this.fetch(false) }, "Save picture");
    this.savePage = h("button", { type: "button", class: "quiet", title: "A page that shows every step of its run, without a kernel and without a network",
      click: () => this.fetch(true) }, "Save page");
    const chosen = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp,text/html", hidden: true, "aria-label": "Picture or page",
      change: () => { if (chosen.files[0]) this.upload(chosen.files[0]); chosen.value = ""; } });
    this.open = h("button", { type: "button", class: "quiet", title: "One that was saved here, or an exported page, shows its run again; from any other the next run starts. Or drop or paste it",
      click: () => chosen.click() }, "Open picture");
    this.buttons = h("span", { class: "tools" }, this.copy, this.save, this.savePage, this.open, chosen);
    this.text = h("pre", { tabindex: 0, "aria-label": "Program" });
    this.message = h("span", { role: "status" });
    this.panel = h("div", { class: "code", hidden: true }, h("p", {}, this.message,
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
    this.message.textContent = "";
    try {
      await navigator.clipboard.writeText(text);
      this.message.textContent = "Copied. It makes this picture without the Playground.";
    } catch { // no clipboard here: an unsafe address, or a frame without the right
      getSelection().selectAllChildren(this.text);
      this.message.textContent = "This makes the picture without the Playground. It is selected: copy it with Ctrl+C or ⌘C.";
    }
  }

  // ---- files

  /** Save the picture with its run, or the run as a page. */
  fetch(page) {
    this.chunks = [];
    this.page = page;
    this.send("save_picture", { start: 0, page });
  }

  /** A chunk of the file: the next one is wanted, or it is whole. */
  download({ start, size, chunk }) {
    if (start === 0) this.chunks = [];
    this.chunks.push(chunk.slice());
    if (start + chunk.length < size) return void this.send("save_picture", { start: start + chunk.length, page: this.page });
    const [type, ending] = this.page ? ["text/html", "html"] : ["image/png", "png"];
    const link = h("a", { href: URL.createObjectURL(new Blob(this.chunks, { type })), download: `${this.name()}.${ending}` });
    this.chunks = [];
    link.click();
    confirm(this.page ? this.savePage : this.save, "Saved");
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  /** Upload files that are dropped on `element`. */
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
      if (event.dataTransfer.files[0]) this.upload(event.dataTransfer.files[0]);
    });
    element.addEventListener("paste", (event) => {
      const [file] = event.clipboardData?.files ?? [];
      if (!file) return; // text, which is its field's
      event.preventDefault();
      event.stopPropagation();
      this.upload(file);
    });
  }

  /** Send a file in chunks: the kernel answers each with `upload_reply`. One at a time; of those that wait, the newest. */
  upload(file, purpose = "run", then = () => {}) {
    if (this.uploading) return void (this.next = [file, purpose, then]);
    this.uploading = { file, purpose, then, start: 0 };
    this.uploadChunk();
  }

  async uploadChunk() {
    const { file, purpose, start } = this.uploading;
    try {
      const bytes = await file.slice(start, start + CHUNK_SIZE).arrayBuffer();
      this.uploading.start += bytes.byteLength;
      this.send("upload", { purpose, name: file.name, size: file.size, start }, bytes);
    } catch {
      this.uploading = null;
      this.say("The browser could not read this file.");
    }
  }

  uploaded({ done, refused, source }) {
    if (!this.uploading) return;
    if (!done) return void this.uploadChunk();
    const { then, purpose } = this.uploading;
    this.uploading = null;
    if (refused) this.say(refused);
    else then();
    if (!refused && purpose === "run") confirm(this.open, source ? "Picture taken" : "Run opened");
    if (source) this.taken();
    if (this.next) this.upload(...this.next);
    this.next = null;
  }
}
