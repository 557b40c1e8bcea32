// Starts the deck: formulas, reveal.js, and a place of the right size for every view. Also the keys that a talk needs.

const deck = new Reveal({
  width: 1280, height: 720, margin: 0, minScale: 0.1, maxScale: 4, center: false,
  hash: true, transition: "none", backgroundTransition: "none", controls: false, slideNumber: "c/t", showSlideNumber: "all",
  scrollActivationWidth: 0, pdfSeparateFragments: false, pdfMaxPagesPerSlide: 1, viewDistance: 2, help: true,
  keyboardCondition: forTheDeck, keyboard: { 68: toggleTheme },
  plugins: [RevealNotes],
});

// ---- light and dark ----------------------------------------------------------------------------------------------

/** Views look at the same attribute (followTheme in common.js). */
function setTheme(dark) { document.documentElement.setAttribute("theme", dark ? "dark" : "light"); }
function toggleTheme() { setTheme(document.documentElement.getAttribute("theme") !== "dark"); }
setTheme(matchMedia("(prefers-color-scheme: dark)").matches && !/print-pdf/.test(location.search));

// ---- keys --------------------------------------------------------------------------------------------------------

/** While a view has the focus its keys are its own; Page Up and Page Down, which a clicker sends, always turn the slide. */
function forTheDeck(event) {
  if (!document.activeElement?.shadowRoot) return true;
  if (event.key === "Escape") document.activeElement.blur(); // and the arrows are the deck's again
  return event.key === "PageUp" || event.key === "PageDown";
}

// ---- views -------------------------------------------------------------------------------------------------------

const SMALLEST = 16; // pixels of the sheet: 12 points of a slide that is 540 points high
const TEXT = 19.5, SMALL = 0.8571; // pixels of a view's text on a slide, and its captions' share of that, as in look.css

// Within a view's shadow root: the slide has the title, so the view gives its heading a line and its footer none. No container,
// so no layout for a phone: a view that is narrow here is narrow because that makes it less tall.
const ON_A_SLIDE = `
  :host { margin: 0 !important; }
  .card.on-a-slide { container-type: normal; max-width: none; font-size: ${TEXT}px; text-align: left; }
  .on-a-slide :is(footer, .numbers, .hint, .tokens, .finished, .finished-title) { display: none; }
  .on-a-slide .heading { display: flex; align-items: baseline; gap: 16px; padding: 8px 16px 0; }
  .on-a-slide .heading h2 { font-size: 1em; }
  .on-a-slide .heading p { margin: 0; }
  .on-a-slide svg { zoom: ${TEXT * SMALL / 11}; } /* curves are drawn for text of 11 pixels */
  .on-a-slide :is(.value, .status, .told, .reading, small) { font-size: ${TEXT * SMALL}px; }
  .on-a-slide .bar { padding: 8px 16px 10px; }
  .on-a-slide .status { min-width: 0; }

  .on-a-slide .stage {
    grid-template: "hero standing schedule" auto "strip strip strip" auto "bar bar bar" auto / var(--hero) calc(0.7 * var(--hero)) minmax(0, 1fr);
    gap: 14px 28px; padding: 12px 16px; align-items: start;
  }
  .on-a-slide .hero { width: var(--hero); margin: 0; } .on-a-slide :is(.standing, .schedule) { max-width: none; }
  .on-a-slide .hero .words { display: none; } .on-a-slide .hero .views span { padding: 2px 5px; } .on-a-slide .hero .views { flex-wrap: nowrap; white-space: nowrap; }
  .on-a-slide .schedule svg { height: calc(0.9 * var(--hero) / ${TEXT * SMALL / 11}); aspect-ratio: auto; }
  .on-a-slide .strip button { max-width: 64px; }

  .on-a-slide .guided-stage { grid-template: "guided uncond cond arrows" auto / minmax(0, 12fr) minmax(0, 7fr) minmax(0, 7fr) minmax(0, 26fr); padding: 8px 16px 12px; }
  .on-a-slide .arrows { display: grid; grid-template-columns: minmax(0, 8fr) minmax(0, 5fr); gap: 16px; align-items: center; }
  .on-a-slide .arrows svg { overflow: visible; }

  .on-a-slide .race { grid-template: "switches switches" auto "lanes gap" auto / minmax(0, 5fr) minmax(0, 3fr); gap: 10px 24px; }
  .on-a-slide .switches { grid-area: switches; }
  .on-a-slide .gap svg { height: 130px; }

  .on-a-slide .token { width: auto; padding: 2px 10px; }
  .on-a-slide .token canvas, .on-a-slide .by-layer { display: none; }
  .on-a-slide .xray-stage figcaption { font-size: 0; } /* its bold words are enough for a room */
  .on-a-slide .xray-stage figcaption b { font-size: ${TEXT * SMALL}px; }
  .on-a-slide .xray-stage { grid-template: "lead beside by-step" auto / minmax(0, 4fr) minmax(0, 3fr) minmax(0, 4fr); padding: 10px 16px; }
`;

function prepare(host) {
  const card = host.shadowRoot.querySelector(".card");
  const style = document.createElement("style");
  style.textContent = ON_A_SLIDE;
  host.shadowRoot.append(style);
  card.classList.add("on-a-slide");
  host.setAttribute("data-prevent-swipe", "");
  host.style.cssText = "position: absolute; top: 0; left: 0; transform-origin: 0 0;";
  new ResizeObserver(() => fit(host)).observe(card);
}

/** Lay a view out as large as its slide has room for, under the words or beside them; else show its still picture. */
function fit(host) {
  const card = host.shadowRoot?.querySelector(".card"), sheet = host.closest(".sheet");
  if (!card || !sheet?.offsetHeight) return; // not on the screen
  const ways = card.querySelector(".hero") ? ["under"] : ["under", "beside"];
  const best = ways.map((way) => largest(host, card, sheet, way)).sort((a, b) => b.area - a.area)[0];
  if (!best.area) return still(host);
  sheet.classList.toggle("beside", best.way === "beside");
  card.style.setProperty("--hero", `${best.hero}px`);
  const [left, top] = [(best.width - best.scale * best.w) / 2, best.way === "beside" ? 0 : (best.height - best.scale * best.h) / 2];
  Object.assign(host.style, { width: `${best.w}px`, height: `${best.h}px`, transform: `translate(${left}px, ${top}px) scale(${best.scale})` });
  host.dataset.scale = best.scale.toFixed(3);
}

/** The layout with the largest pictures that fits and can be read, as {area, ...}; an area of 0 where there is none. */
function largest(host, card, sheet, way) {
  sheet.classList.toggle("beside", way === "beside");
  const { clientWidth: width, clientHeight: height } = host.parentElement;
  let best = { area: 0 };
  const attempt = (w, hero) => {
    card.style.setProperty("--hero", `${hero}px`);
    host.style.width = `${w}px`;
    const h = card.offsetHeight, scale = Math.min(width / w, height / h, 1.5), area = scale * scale * pictured(card);
    if (scale * TEXT * SMALL >= SMALLEST && card.scrollWidth <= w && (hero ? scale > (best.scale ?? 0) : area > best.area)) best = { area, way, width, height, scale, w, h, hero };
  };
  if (card.querySelector(".hero")) { // one picture leads: as much of it as there is height for
    for (let hero = Math.round(0.42 * width); hero >= 120 && (best.scale ?? 0) < 1; hero -= 8) attempt(width, hero);
  } else { // a narrower view's pictures are less tall
    for (let w = width; w >= 400; w -= 20) attempt(w, 0);
  }
  return best;
}

/** The area of all pictures in a view, in its own pixels. */
function pictured(card) {
  return [...card.querySelectorAll("canvas")].reduce((sum, picture) => sum + picture.clientWidth * picture.clientHeight, 0);
}

/** The picture that a view keeps for where no scripts run. */
function still(host) {
  const loaded = host.querySelector("img"), picture = loaded.cloneNode(), sheet = host.closest(".sheet");
  picture.removeAttribute("style");
  host.replaceWith(picture);
  arrange(sheet, loaded);
}

/** A picture that is not wide stands beside the words; deck.css makes it as large as its ratio allows. */
function arrange(sheet, loaded = sheet.querySelector(".shown > img")) {
  const picture = sheet.querySelector(".shown > img");
  if (!loaded?.naturalWidth) return;
  const ratio = loaded.naturalWidth / loaded.naturalHeight;
  picture.style.setProperty("--ratio", ratio);
  sheet.classList.toggle("beside", ratio < 1.3);
}

/** A number or a small table that a cell printed, as large as there is room for. */
function grow(printed) {
  const room = printed.parentElement;
  for (let size = 40; room.clientHeight && size >= SMALLEST; size -= 2) {
    printed.style.fontSize = `${size}px`;
    if (printed.scrollWidth <= room.clientWidth && printed.offsetHeight <= room.clientHeight) break;
  }
}

function fitAll(root) {
  root.querySelectorAll("[data-sdwidgets-replay]").forEach(fit);
  root.querySelectorAll(".shown > :is(pre, table, div:not([data-sdwidgets-replay]))").forEach(grow);
}

async function start() {
  await MathJax.startup.promise;
  await MathJax.typesetPromise();
  await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
  document.querySelectorAll(".sheet.picture").forEach((sheet) => arrange(sheet));
  for (const host of document.querySelectorAll("[data-sdwidgets-replay]")) if (host.shadowRoot) prepare(host);
  deck.on("slidechanged", ({ currentSlide }) => { document.activeElement?.blur(); fitAll(currentSlide); });
  deck.on("pdf-ready", () => fitAll(document));
  await deck.initialize();
  fitAll(deck.getCurrentSlide());
  document.documentElement.dataset.ready = "yes";
}

start();
