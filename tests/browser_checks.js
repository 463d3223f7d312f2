/* What browser.py runs in an opened page: lookAt({print, openDetails}) -> {clipped, overlapping, ...}, lists of lines.
   Only what is shown is judged: nothing of display none, visibility hidden, closed <details>, the 1 px clip pattern. */

async function lookAt({ print, openDetails }) {
  if (openDetails) openAllDetails();
  await loadAllImages();
  const texts = shownTexts();
  const images = [...document.images].filter(isShown);
  const items = [...texts, ...images.map((image) => ({ element: image, rects: [image.getBoundingClientRect()] }))];
  return {
    clipped: clipped(items, texts, images, print),
    overlapping: overlapping(items),
    contrast: contrast(texts),
    images_without_alt: imagesWithoutAlt(),
    structure: structure(print),
  };
}

function openAllDetails() {
  for (const details of document.querySelectorAll("details")) {
    details.removeAttribute("name"); // of those with one name only one can be open
    details.open = true;
  }
}

/** Lazy images too, so that their requests are seen and broken ones are known. */
async function loadAllImages() {
  for (const element of document.querySelectorAll("img, iframe")) element.loading = "eager";
  await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
  await document.fonts.ready;
}

// ---- what is there, and how it is told

/** A function of an element, asked once for each. */
function once(compute) {
  const known = new Map();
  return (element) => {
    if (!known.has(element)) known.set(element, compute(element));
    return known.get(element);
  };
}

const styleOf = once((element) => getComputedStyle(element));

const isVisuallyHidden = once((element) => {
  if (!element) return false;
  const style = styleOf(element);
  const clipping = [style.overflowX, style.overflowY].every((o) => o === "hidden" || o === "clip");
  const tiny = element.offsetWidth <= 1 && element.offsetHeight <= 1;
  const away = /absolute|fixed/.test(style.position) && ((clipping && tiny) || style.clip.startsWith("rect("));
  return away || isVisuallyHidden(element.parentElement);
});

/** To a screen reader at least. */
const isExposed = once((element) => element.checkVisibility({ visibilityProperty: true }));
const isShown = once((element) => isExposed(element) && !isVisuallyHidden(element));

/** {element, rects, text}: each shown element's own text, and the values of form controls. */
function shownTexts() {
  const found = new Map();
  const range = document.createRange();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !isShown(element)) continue;
    range.selectNodeContents(node);
    const rects = [...range.getClientRects()].filter((rect) => rect.width > 0 && rect.height > 0);
    if (!rects.length) continue;
    if (!found.has(element)) found.set(element, { element, rects: [], text: "" });
    const item = found.get(element);
    item.rects.push(...rects);
    item.text = `${item.text} ${node.data}`.trim().replace(/\s+/g, " ");
  }
  for (const element of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    const text = element.selectedOptions ? element.selectedOptions[0]?.text : element.value || element.placeholder;
    if (text && isShown(element) && !/^(checkbox|radio|range|color|file)$/.test(element.type))
      found.set(element, { element, rects: [element.getBoundingClientRect()], text });
  }
  return [...found.values()];
}

/** "main > article#T1 > p.claim": the last four of an element's ancestry, with ids or without. */
function pathOf(element, ids = true) {
  const parts = [];
  for (let at = element; at && parts.length < 4 && at !== document.body; at = at.parentElement) {
    const id = ids && at.id ? `#${at.id}` : "";
    parts.unshift(at.localName + id + [...at.classList].map((name) => `.${name}`).join(""));
  }
  return parts.join(" > ") || element.localName;
}

const quoted = (text) => (text.length > 40 ? `'${text.slice(0, 37)}...'` : `'${text}'`);
const px = (length) => `${Math.round(length)} px`;
const named = (item) => (item.text ? `${quoted(item.text)} in ${pathOf(item.element)}` : pathOf(item.element));

/** Lines, of which those with one key are told once, with their number. */
class Lines {
  lines = new Map();

  add(key, line) {
    if (this.lines.has(key)) this.lines.get(key).more += 1;
    else this.lines.set(key, { line, more: 0 });
  }

  list() {
    return [...this.lines.values()].map(({ line, more }) => (more ? `${line} (and ${more} more like it)` : line));
  }
}

// ---- boxes that clip or scroll

const scrolls = (overflow) => overflow === "auto" || overflow === "scroll";
const hides = (overflow) => overflow === "hidden" || overflow === "clip";

/** The box that an element's overflow counts in: its parent, or what an absolute one is positioned by. */
function containingBox(element) {
  const { position } = styleOf(element);
  let box = element.parentElement;
  if (position !== "absolute" && position !== "fixed") return box;
  for (; box; box = box.parentElement) {
    const style = styleOf(box);
    if (style.transform !== "none" || (position === "absolute" && style.position !== "static")) return box;
  }
  return null;
}

/** An element's ancestors that clip or scroll what is in them, inmost first; those of the whole page left out. */
const clippingBoxes = once((element) => {
  const box = containingBox(element);
  if (!box || box === document.body || box === document.documentElement) return [];
  return clipsItself(box) ? [box, ...clippingBoxes(box)] : clippingBoxes(box);
});

/** Those of an item; a text's own element is one of them. */
function boxesAround({ element, text }) {
  const isBox = text && clipsItself(element) && !element.matches("input, select, textarea");
  return isBox ? [element, ...clippingBoxes(element)] : clippingBoxes(element);
}

const clipsItself = once((box) => {
  const { overflowX, overflowY, display } = styleOf(box);
  return display !== "inline" && display !== "contents" && (overflowX !== "visible" || overflowY !== "visible");
});

/** A box inside its borders, without scrollbars. */
const innerRect = once((box) => {
  const { left, top } = box.getBoundingClientRect();
  const [x, y] = [left + box.clientLeft, top + box.clientTop];
  return { left: x, top: y, right: x + box.clientWidth, bottom: y + box.clientHeight };
});

/** `rect` within `bounds`, across and down only where told. */
function within(rect, bounds, across = true, down = true) {
  return {
    left: across ? Math.max(rect.left, bounds.left) : rect.left,
    right: across ? Math.min(rect.right, bounds.right) : rect.right,
    top: down ? Math.max(rect.top, bounds.top) : rect.top,
    bottom: down ? Math.min(rect.bottom, bounds.bottom) : rect.bottom,
  };
}

const isEmpty = (rect) => rect.right <= rect.left || rect.bottom <= rect.top;

/** A line of text without the room that a font keeps above and below: as high as its font's size. */
function trimmed(rect, element) {
  const size = parseFloat(styleOf(element).fontSize);
  const over = rect.height > size && rect.height < 2 * size ? (rect.height - size) / 2 : 0;
  return { left: rect.left, right: rect.right, top: rect.top + over, bottom: rect.bottom - over };
}

// ---- clipped

function clipped(items, texts, images, print) {
  const lines = new Lines();
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth + 1) lines.add("page", `the page is ${px(wide)} wide in a window of ${px(innerWidth)}`);
  for (const item of items) for (const rect of item.rects) followOut(lines, item, trimmed(rect, item.element));
  for (const { element, text } of texts) shortened(lines, element, text);
  for (const image of images)
    if (!image.naturalWidth) lines.add(image, `broken image in ${pathOf(image)}: ${image.src.slice(0, 60)}`);
  if (print) for (const box of scrollingBoxes()) lines.add(box, `a scrolling box is cut off on paper: ${sizes(box)}`);
  return lines.list();
}

/** From an item's box outwards: what boxes with overflow hidden cut from text, and what leaves the window sideways. */
function followOut(lines, item, rect) {
  const isText = Boolean(item.text);
  for (const box of boxesAround(item)) {
    const { overflowX, overflowY } = styleOf(box);
    const [inner, path] = [innerRect(box), pathOf(box)];
    const across = Math.max(inner.left - rect.left, rect.right - inner.right);
    const down = Math.max(inner.top - rect.top, rect.bottom - inner.bottom);
    if (isText && hides(overflowX) && across > 1)
      lines.add(box, `text cut off by ${px(across)} across: ${named(item)}, by ${path}`);
    else if (isText && hides(overflowY) && down > 1)
      lines.add(box, `text cut off by ${px(down)} down: ${named(item)}, by ${path}`);
    rect = within(rect, inner, overflowX !== "visible", overflowY !== "visible");
    if (isEmpty(rect)) return;
  }
  const [left, right] = [-rect.left, rect.right - document.documentElement.clientWidth];
  const key = pathOf(item.element, false);
  if (left > 1) lines.add(`left ${key}`, `${px(left)} left of the window: ${named(item)}`);
  if (right > 1) lines.add(`right ${key}`, `${px(right)} right of the window: ${named(item)}`);
}

/** Text that its own box cuts off, with an ellipsis or by a pixel that its letters do not need. */
function shortened(lines, element, text) {
  const { overflowX, overflowY, display } = styleOf(element);
  if (display === "inline" || element.matches("input, select, textarea")) return;
  const across = hides(overflowX) && element.scrollWidth > element.clientWidth + 1;
  const down = hides(overflowY) && element.scrollHeight > element.clientHeight + 1;
  if ((across || down) && !lines.lines.has(element))
    lines.add(element, `text cut off: ${quoted(text)} in ${sizes(element)}`);
}

const sizes = (box) =>
  `${pathOf(box)}, ${box.scrollWidth} x ${box.scrollHeight} px in ${box.clientWidth} x ${box.clientHeight} px`;

/** Boxes that hold more than they show, and scroll. */
function scrollingBoxes() {
  return [...document.body.querySelectorAll("*")].filter((element) => {
    if (!isShown(element) || !clipsItself(element) || element.matches("input, select, textarea")) return false;
    const { overflowX, overflowY } = styleOf(element);
    const across = scrolls(overflowX) && element.scrollWidth > element.clientWidth + 1;
    return across || (scrolls(overflowY) && element.scrollHeight > element.clientHeight + 1);
  });
}

// ---- overlapping

/** Lines of text and images that share more than 2 px both ways; found in one sweep from top to bottom. */
function overlapping(items) {
  const boxes = [];
  for (const item of items) {
    if (isTilted(item.element)) continue;
    for (const rect of item.rects) {
      const seen = boxesAround(item).reduce((r, box) => {
        const { overflowX, overflowY } = styleOf(box);
        return within(r, innerRect(box), overflowX !== "visible", overflowY !== "visible");
      }, trimmed(rect, item.element));
      if (!isEmpty(seen)) boxes.push({ item, ...seen });
    }
  }
  boxes.sort((a, b) => a.top - b.top);
  const lines = new Lines();
  let open = [];
  for (const box of boxes) {
    open = open.filter((other) => other.bottom > box.top + 2);
    for (const other of open) {
      const across = Math.min(box.right, other.right) - Math.max(box.left, other.left);
      const down = Math.min(box.bottom, other.bottom) - box.top;
      const [a, b] = [other.item.element, box.item.element];
      if (across <= 2 || down <= 2 || a.contains(b) || b.contains(a)) continue;
      const key = [pathOf(a, false), pathOf(b, false)].join();
      lines.add(key, `${named(other.item)} and ${named(box.item)} share ${Math.round(across)} x ${px(down)}`);
    }
    open.push(box);
  }
  return lines.list();
}

/** Turned, and not by right angles: its boxes are larger than what is drawn. */
const isTilted = once((element) => {
  if (!element) return false;
  const { transform, rotate } = styleOf(element);
  const { a, b } = new DOMMatrix(`${transform} ${rotate === "none" ? "" : `rotate(${rotate})`}`.replace(/^none /, ""));
  return Math.min(Math.abs(a), Math.abs(b)) > 0.01 || isTilted(element.parentElement);
});

// ---- contrast (WCAG 2.2, 1.4.3; https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio)

const LEAST_CONTRAST = 4.5; // of large text too, of which WCAG asks 3

function contrast(texts) {
  const lines = new Lines();
  const canvas = canvasColour();
  for (const { element, text } of texts) {
    const where = `${quoted(text)} in ${pathOf(element)}`;
    const { onTop, behind, why } = coloursOf(element, canvas);
    if (why) {
      lines.add(`${why} ${pathOf(element, false)}`, `cannot judge ${where}: ${why}`);
      continue;
    }
    const ratio = contrastRatio(onTop, behind);
    if (ratio >= LEAST_CONTRAST) continue;
    const told = `${hex(onTop)} on ${hex(behind)}`;
    const number = Math.floor(ratio * 10) / 10; // 4.49 is not 4.5
    lines.add(`${told} ${pathOf(element, false)}`, `contrast ${number.toFixed(1)}:1 of ${where}: ${told}`);
  }
  return lines.list();
}

/** The colour of an element's text and of what is behind it, each laid over the page; or why nobody can tell. */
function coloursOf(element, canvas) {
  const inDrawing = element instanceof SVGElement;
  let onTop = inkOf(element);
  if (!onTop) return { why: "it is not painted in one colour" };
  let behind = [0, 0, 0, 0];
  if (inDrawing) {
    const svg = element.closest("svg");
    for (const shape of shapesBehind(element, svg)) {
      const fill = paint(shape, "fill");
      if (!fill) return { why: `${pathOf(shape)} is not painted in one colour` };
      behind = over(behind, fill);
    }
    onTop = over(onTop, behind);
  }
  for (let at = element; at; at = at.parentElement) {
    const { colour, image, opacity } = groundOf(at);
    if (image && !colour[3] && behind[3] < 1) return { why: `a background image of ${pathOf(at)}` };
    [onTop, behind] = [over(onTop, colour), over(behind, colour)].map(([r, g, b, a]) => [r, g, b, a * opacity]);
  }
  return { onTop: over(onTop, canvas), behind: over(behind, canvas) };
}

function inkOf(element) {
  if (element instanceof SVGElement) return paint(element, "fill");
  const isPlaceholder = element.placeholder && !element.value;
  return rgba((isPlaceholder ? getComputedStyle(element, "::placeholder") : styleOf(element)).color);
}

const groundOf = once((element) => {
  const style = styleOf(element);
  const isPainted = !(element instanceof SVGElement) || element.localName === "svg";
  return {
    colour: isPainted && style.display !== "contents" ? rgba(style.backgroundColor) : [0, 0, 0, 0],
    image: isPainted && style.backgroundImage !== "none",
    opacity: parseFloat(style.opacity),
  };
});

/** The filled shapes of a drawing that were drawn before a text and hold its middle, the topmost first. */
function shapesBehind(text, svg) {
  const box = text.getBoundingClientRect();
  const middle = new DOMPoint((box.left + box.right) / 2, (box.top + box.bottom) / 2);
  return shapesOf(svg)
    .filter((shape) => text.compareDocumentPosition(shape) & Node.DOCUMENT_POSITION_PRECEDING)
    .filter((shape) => shape.isPointInFill(middle.matrixTransform(shape.getScreenCTM().inverse())))
    .reverse();
}

const shapesOf = once((svg) =>
  [...svg.querySelectorAll("rect, circle, ellipse, path, polygon, polyline")]
    .filter((shape) => !shape.closest("defs, clipPath, mask, marker, pattern, symbol"))
    .filter((shape) => isExposed(shape) && styleOf(shape).fill !== "none"),
);

/** What a drawing's element is filled with, [r, g, b, alpha]; null where it is a gradient. */
function paint(element, property) {
  const style = styleOf(element);
  if (style[property] === "none") return [0, 0, 0, 0];
  if (style[property].startsWith("url(") || style[property].startsWith("context")) return null;
  const [r, g, b, a] = rgba(style[property]);
  const alone = element.localName === "text" || element.localName === "tspan" ? 1 : parseFloat(style.opacity);
  return [r, g, b, a * parseFloat(style.fillOpacity) * alone];
}

/** What a page without any background shows: white, or dark where its color-scheme says so. */
function canvasColour() {
  const probe = document.createElement("div");
  probe.style.backgroundColor = "Canvas";
  document.documentElement.append(probe);
  const colour = rgba(getComputedStyle(probe).backgroundColor);
  probe.remove();
  return colour;
}

const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", {
  willReadFrequently: true,
});

/** [r, g, b, alpha] of 0 to 255 and 0 to 1, of any colour that CSS knows. */
const rgba = once((css) => {
  const plain = /^rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)$/.exec(css);
  if (plain) return [plain[1], plain[2], plain[3], plain[4] ?? 1].map(Number);
  pen.clearRect(0, 0, 1, 1);
  pen.fillStyle = css;
  pen.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
});

function over([r, g, b, a], [R, G, B, A]) {
  const alpha = a + A * (1 - a);
  if (!alpha) return [0, 0, 0, 0];
  const mixed = (top, below) => (top * a + below * A * (1 - a)) / alpha;
  return [mixed(r, R), mixed(g, G), mixed(b, B), alpha];
}

function contrastRatio(one, other) {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

function luminance(colour) {
  const [r, g, b] = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function hex(colour) {
  const digits = colour.slice(0, 3).map((c) => Math.round(c).toString(16).padStart(2, "0"));
  const short = digits.every((pair) => pair[0] === pair[1]);
  return `#${digits.map((pair) => (short ? pair[0] : pair)).join("")}`;
}

// ---- images and structure

const isDecoration = (element) => /^(presentation|none)$/.test(element.getAttribute("role") ?? "");
const isUnspoken = (element) => Boolean(element.closest("[aria-hidden=true]"));

function imagesWithoutAlt() {
  const lines = [];
  for (const image of document.images) {
    if (!isExposed(image) || isDecoration(image)) continue;
    const alt = image.getAttribute("alt");
    if (alt === null) lines.push(`no alt: ${pathOf(image)}`);
    else if (!alt.trim()) lines.push(`an empty alt without role=presentation: ${pathOf(image)}`);
  }
  for (const svg of document.querySelectorAll("svg")) {
    if (!isExposed(svg) || svg.parentElement.closest("svg") || isUnspoken(svg) || isDecoration(svg)) continue;
    const title = svg.querySelector(":scope > title")?.textContent.trim();
    if (!title && !ariaName(svg)) lines.push(`a drawing without title or aria-label: ${pathOf(svg)}`);
  }
  return lines;
}

function structure(print) {
  return [
    ...page(),
    ...headings(),
    ...ids(),
    ...names(),
    ...tables(),
    ...(print ? [] : scrollingBoxes().filter((box) => box.tabIndex < 0)).map(
      (box) => `a scrolling box that no key reaches, without tabindex=0: ${sizes(box)}`,
    ),
  ];
}

function page() {
  const lines = [];
  if (!document.documentElement.lang.trim()) lines.push("html has no lang");
  if (!document.title.trim()) lines.push("the page has no title");
  return lines;
}

function headings() {
  const found = [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].filter(isExposed);
  const first = found.filter((heading) => heading.localName === "h1").length;
  const lines = first === 1 ? [] : [`${first} h1 in place of one`];
  let before = 0;
  for (const heading of found) {
    const level = Number(heading.localName[1]);
    const text = quoted(heading.textContent.trim());
    if (level > before + 1) lines.push(`h${level} ${text} follows ${before ? `h${before}` : "no heading"}`);
    before = level;
  }
  return lines;
}

function ids() {
  const lines = new Lines();
  const known = new Set();
  for (const { id } of document.querySelectorAll("[id]")) {
    if (known.has(id)) lines.add(id, `the id ${id} is given more than once`);
    known.add(id);
  }
  for (const link of document.querySelectorAll("a[href^='#'], area[href^='#'], use[href^='#']")) {
    const href = link.getAttribute("href");
    const isFound = href === "#" || href === "#top" || known.has(decoded(href.slice(1)));
    if (!isFound) lines.add(href, `no element has the id of ${href} in ${pathOf(link)}`);
  }
  for (const attribute of ["for", "headers", "aria-labelledby", "aria-describedby", "aria-controls"])
    for (const element of document.querySelectorAll(`[${attribute}]`))
      for (const id of element.getAttribute(attribute).split(/\s+/).filter((id) => id && !known.has(id)))
        lines.add(`${attribute} ${id}`, `no element has the id of ${attribute}=${id} in ${pathOf(element)}`);
  return lines.list();
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a lone %
  }
}

function ariaName(element) {
  const labels = (element.getAttribute("aria-labelledby") ?? "").split(/\s+/).map((id) => document.getElementById(id));
  const spoken = labels.map((label) => label?.textContent.trim() ?? "").join("");
  return element.getAttribute("aria-label")?.trim() || spoken;
}

/** What a screen reader says of an element's content: its text, and the names of images in it. */
function contentName(element) {
  const images = [...element.querySelectorAll("img[alt], svg > title, [aria-label]")];
  return element.textContent.trim() || images.map((image) => image.alt || ariaName(image) || "").join("");
}

function names() {
  const lines = [];
  const title = (element) => element.getAttribute("title")?.trim();
  for (const element of document.querySelectorAll("a[href], button, summary, [role=button]"))
    if (isExposed(element) && !ariaName(element) && !contentName(element) && !title(element))
      lines.push(`a ${element.localName} without text: ${pathOf(element)}`);
  for (const control of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (!isExposed(control) || ariaName(control) || title(control)) continue;
    const own = /^(submit|reset)$/.test(control.type) || (control.type === "button" && control.value) || control.alt;
    if (!own && ![...control.labels].some(contentName)) lines.push(`a control without a label: ${pathOf(control)}`);
  }
  return lines;
}

function tables() {
  return [...document.querySelectorAll("table")]
    .filter((table) => isExposed(table) && !isDecoration(table) && !table.querySelector("th"))
    .map((table) => `a table without th: ${pathOf(table)}`);
}
