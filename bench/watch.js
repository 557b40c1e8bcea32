card => {
  // Notes when the hand moved something; when an order left the page, with its number and settings, as the page's own socket sends
  // it; and when a live picture stood on the page first, with its order's number. Evaluated with the card by live.py.
  window.moves = [];
  window.sent = [];
  window.frames = [];
  let newest = 0;
  card.addEventListener("input", () => window.moves.push(performance.now()), true);
  const send = WebSocket.prototype.send;
  WebSocket.prototype.send = function (data) {
    const text = typeof data === "string" ? data : data instanceof Blob ? "" : new TextDecoder().decode(data);
    const live = text.includes('"kind":"run"') && text.match(/"live":(\d+)/);
    if (live) {
      const setting = (name) => text.match(new RegExp('"' + name + '":"([^"]*)"'))?.[1];
      window.sent.push({ live: Number(live[1]), time: performance.now(), prompt: setting("prompt"), seed: setting("seed") });
    }
    return send.call(this, data);
  };
  new MutationObserver(() => {
    const live = Number(card.dataset.live);
    if (live <= newest) return; // the whole run of a picture that stood there already
    newest = live;
    requestAnimationFrame(() => window.frames.push({ live, time: performance.now() }));
  }).observe(card, { attributes: true, attributeFilter: ["data-live"] });
}
