// What can be done with the picture that is shown: copy it as code. Class Tools, buttons for the footer and a panel above it.

class Tools {
  constructor(send) {
    this.send = send;
    this.copy = h("button", { type: "button", class: "quiet", "aria-expanded": "false", title: "The diffusers call that makes this picture",
      click: () => (this.panel.hidden ? send({ kind: "code" }) : this.hideCode()) }, "Copy as code");
    this.buttons = h("span", { class: "tools" }, this.copy);
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
}
