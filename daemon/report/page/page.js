// SPDX-License-Identifier: Apache-2.0
// The page: what is drawn, and what keys and pointer do. Names come from others: they are drawn or set
// as textContent, never as markup.

const ROW = 22;             // px, of a frame
const GAP = 1;
const LEAST = 1;            // px: narrower frames are shown as a shade of their row
const PAD = 5;              // px, beside a label
const $ = (id) => document.getElementById(id);

const data = JSON.parse($("data").textContent);
const tree = new Tree(data);
const view = {
  root: 0,                  // zoomed into; 0: all
  selected: 0,
  hovered: 0,
  segment: -1,
  mode: "wall",
  matches: null,            // of each frame, whether it matches
  tallest: 0,               // rows, so far: what is below does not jump about
  rows: [],                 // what is drawn: per row [x, width, place] of its frames, from left to right
};
let theme, queued = false;

// ---- names ----

function nameOf(place) {
  return data.frames[tree.frame[place]][0];
}

// Short: the function where it is known apart; else the signature without the folders of its file.
function labelOf(frame) {
  const [signature, , name] = data.frames[frame];
  return name || signature.replace(/^[^\s(<[]*\/(?=[^/])/, "");
}

function kindOf(place) {
  return KINDS[data.frames[tree.frame[place]][1]] || "unknown";
}

function element(tag, className, text) {
  const e = document.createElement(tag);
  e.className = className;
  e.textContent = text;
  return e;
}

// ---- colours ----

function hatch(draw) {
  const tile = document.createElement("canvas");
  const scale = window.devicePixelRatio || 1;
  tile.width = tile.height = Math.round(8 * scale);
  const c = tile.getContext("2d");
  c.scale(tile.width / 8, tile.width / 8);
  c.strokeStyle = c.fillStyle = theme.pattern;
  draw(c);
  const pattern = c.createPattern(tile, "repeat");
  pattern.setTransform(new DOMMatrix().scale(8 / tile.width));
  return pattern;
}

function diagonals(c) {
  c.lineWidth = 1.6;
  c.beginPath();
  for (const x of [-8, 0, 8]) {
    c.moveTo(x - 1, 9);
    c.lineTo(x + 9, -1);
  }
  c.stroke();
}

function dots(c) {
  for (const [x, y] of [[2, 2], [6, 6]]) {
    c.beginPath();
    c.arc(x, y, 1.1, 0, 7);
    c.fill();
  }
}

function uprights(c) {
  c.fillRect(1, 0, 1.4, 8);
  c.fillRect(5, 0, 1.4, 8);
}

// Neighbours of one kind differ a little.
function shades(colour) {
  const [r, g, b] = colour.match(/\w\w/g).map((h) => parseInt(h, 16));
  return [-0.07, -0.03, 0, 0.04, 0.08].map((d) =>
    `rgb(${[r, g, b].map((v) => Math.round(d < 0 ? v * (1 + d) : v + (255 - v) * d)).join()})`);
}

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue(`--${name}`).trim();
  theme = { ink: get("frame-ink"), card: get("card"), line: get("line"), accent: get("accent"), match: get("match"),
            matchInk: get("match-ink"), pattern: get("pattern"), bar: get("bar"), quiet: get("quiet"), page: get("ink") };
  theme.shades = Object.fromEntries(KINDS.map((kind) => [kind, shades(get(kind))]));
  theme.patterns = { kernel: hatch(dots), waiting: hatch(diagonals), anonymous: hatch(uprights) };
}

function shadeOf(name) {
  let h = 0;
  for (let i = 0; i < name.length; i++)
    h = (h * 31 + name.charCodeAt(i)) | 0;
  return (h >>> 3) % 5;
}
const frameShades = data.frames.map((f) => shadeOf(f[0]));

function fillKind(c, kind, shade, x, y, w, h) {
  c.fillStyle = theme.shades[kind][shade];
  c.fillRect(x, y, w, h);
  if (theme.patterns[kind] && w > 3) {
    c.fillStyle = theme.patterns[kind];
    c.fillRect(x, y, w, h);
  }
  if (kind === "python" && w > 6) {
    c.fillStyle = theme.bar;
    c.fillRect(x, y, 2.5, h);
  }
}

// ---- drawing ----

const canvas = $("graph"), scroll = $("scroll");
const context = canvas.getContext("2d", { alpha: false });
const FONT = '12px ui-monospace, "DejaVu Sans Mono", "Liberation Mono", monospace';
let charWidth = 7.2;

function redraw() {
  if (!queued) {
    queued = true;
    requestAnimationFrame(() => { queued = false; draw(); });
  }
}

function resizeCanvas() {
  const scale = window.devicePixelRatio || 1;
  const width = scroll.clientWidth, height = scroll.clientHeight;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.height = `${height}px`;
  }
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.font = FONT;
  context.textBaseline = "middle";
  charWidth = context.measureText("mmmmmmmmmm").width / 10;
  return [width, height];
}

function drawFrame(place, x, y, w, faded) {
  const c = context, frame = tree.frame[place];
  const matched = view.matches && view.matches[frame];
  const inner = Math.max(w - (w > 3 ? GAP : 0), 0.5), h = ROW - GAP;

  c.globalAlpha = faded || (view.matches && !matched) ? 0.42 : 1;
  if (matched) {
    c.fillStyle = theme.match;
    c.fillRect(x, y, inner, h);
  } else {
    fillKind(c, kindOf(place), frameShades[frame], x, y, inner, h);
  }
  c.globalAlpha = faded ? 0.65 : 1;
  const letters = Math.floor((inner - 2 * PAD) / charWidth);
  if (letters >= 3) {
    const label = labelOf(frame);
    c.fillStyle = matched ? theme.matchInk : theme.ink;
    c.fillText(label.length <= letters ? label : `${label.slice(0, letters - 1)}…`, x + PAD, y + h / 2 + 0.5);
  }
  c.globalAlpha = 1;
  if (place === view.selected || place === view.hovered) {
    c.lineWidth = place === view.selected ? 2 : 1;
    c.strokeStyle = theme.page;
    c.strokeRect(x + 1, y + 1, Math.max(inner - 2, 1), h - 2);
  }
}

// The frames below root, over the whole width; only what can be seen.
function drawBelow(width, top, bottom) {
  const { first, children, total, start, depth } = tree;
  const from = start[view.root], scale = width / total[view.root];
  const todo = [view.root];

  while (todo.length) {
    const place = todo.pop();
    const row = depth[place], y = (row - 1) * ROW - top;
    if (place > 0) {
      const x = (start[place] - from) * scale, w = total[place] * scale;
      if (y > -ROW) {
        drawFrame(place, x, y, w, false);
        (view.rows[row] ||= []).push([x, w, place]);
      }
    }
    if (y + ROW >= bottom)
      continue;
    let tiny = 0, tinyX = -1;
    for (let c = first[place]; c < first[place + 1]; c++) {
      const child = children[c], w = total[child] * scale;
      if (w >= LEAST) {
        todo.push(child);
      } else if (w > 0) {
        tinyX = tinyX < 0 ? (start[child] - from) * scale : tinyX;
        tiny += w;
      }
    }
    if (tiny >= LEAST && y + ROW > -ROW) {
      context.fillStyle = theme.line;
      context.fillRect(tinyX, y + ROW, tiny, ROW - GAP);
    }
  }
}

function draw() {
  const [width, height] = resizeCanvas();
  const top = scroll.scrollTop;

  context.fillStyle = theme.card;
  context.fillRect(0, 0, width, height);
  view.rows = [];
  if (tree.total[view.root] > 0) {
    for (const place of tree.path(tree.parent[view.root])) {
      const y = (tree.depth[place] - 1) * ROW - top;
      if (y > -ROW && y < height) {
        drawFrame(place, 0, y, width, true);
        view.rows[tree.depth[place]] = [[0, width, place]];
      }
    }
    drawBelow(width, top, height);
  }
}

// How many rows there are below root: so high is the space to scroll in.
function measure() {
  const { first, children, total, depth } = tree;
  const least = tree.total[view.root] * LEAST / Math.max(scroll.clientWidth, 1);
  const todo = [view.root];
  let rows = 0;

  while (todo.length) {
    const place = todo.pop();
    rows = Math.max(rows, depth[place]);
    for (let c = first[place]; c < first[place + 1]; c++)
      if (total[children[c]] >= least)
        todo.push(children[c]);
  }
  view.tallest = Math.max(view.tallest, rows, 8);
  $("space").style.height = `${view.tallest * ROW + 2}px`;
}

// ---- what the page says ----

function factsOf(place) {
  const all = tree.total[0], part = tree.total[place];
  const facts = [`${timeText(part)} · ${shareText(part, all)}`];
  if (view.root > 0 && place !== view.root && tree.isWithin(place, view.root))
    facts.push(`${shareText(part, tree.total[view.root])} of the zoomed frame`);
  facts.push(`self ${timeText(tree.self(place))}`, `${tree.count[place]} samples`);
  return facts;
}

function showDetails() {
  const place = view.hovered || view.selected || view.root, box = $("details");
  box.replaceChildren();
  if (!place) {
    box.append(element("div", "place", "Click a frame to zoom. Arrow keys, Enter, Escape and / work, too."));
    return;
  }
  const [, , , file, line] = data.frames[tree.frame[place]];
  const facts = element("div", "facts", "");
  for (const fact of factsOf(place))
    facts.append(element("span", "", fact));
  const states = tree.state.map((s) => s[place]);
  const all = states[0] + states[1] + states[2];
  facts.append(element("span", "place", `on CPU ${shareText(states[0], all)}, run queue ${shareText(states[1], all)}, ` +
                                        `blocked ${shareText(states[2], all)}`));
  box.append(element("div", "name", nameOf(place)),
             element("div", "place", kindOf(place) + (file ? ` · ${file}${line ? `:${line}` : ""}` : "")), facts);
}

function showPath() {
  const nav = $("path"), path = tree.path(view.root);
  nav.replaceChildren();
  $("reset").disabled = view.root === 0;
  const crumb = (text, place) => {
    const button = element("button", "", text);
    button.type = "button";
    button.addEventListener("click", () => zoom(place));
    nav.append(button, element("span", "", "›"));
  };
  if (!path.length) {
    nav.append(element("strong", "", "all"));
    return;
  }
  crumb("all", 0);
  // The middle of a deep path is left out.
  path.slice(0, -1).forEach((place, i, callers) => {
    if (callers.length <= 5 || i < 2 || i >= callers.length - 3)
      crumb(labelOf(tree.frame[place]), place);
    else if (i === 2)
      nav.append(element("span", "", ` … ${callers.length - 5} frames … ›`));
  });
  nav.append(element("strong", "", labelOf(tree.frame[view.root])));
}

function showMatched() {
  $("matched").textContent = view.matches
    ? `${shareText(tree.matchedTime(view.root, view.matches), tree.total[view.root])} matched` : "";
}

function showHeading() {
  const s = view.segment < 0 ? data.segments : [data.segments[view.segment]];
  const same = (key) => s.length && s.every((x) => x[key] === s[0][key]) ? s[0][key] : "";
  const parts = [same("endpoint"), same("service")].filter(Boolean);
  const states = tree.state.map((x) => x[0]);
  const samples = s.reduce((sum, x) => sum + x.samples, 0);
  $("title").textContent = parts.join(" · ") || "Flame graph";
  document.title = `${parts[0] || data.host || "swprofd"} – flame graph`;
  $("subtitle").textContent = [
    s.length === 1 ? `segment ${s[0].segment}` : `${s.length} segments`,
    `${samples.toLocaleString("en")} samples`,
    `${timeText(states[0] + states[1] + states[2])} wall, ${timeText(states[0])} on CPU, ${timeText(states[2])} blocked`,
    same("instance") || data.host,
    s.length ? new Date(Math.min(...s.slice(0, 10000).map((x) => x.start_wall_ms))).toLocaleString() : "",
  ].filter(Boolean).join("  ·  ");
}

function showAll() {
  const nothing = tree.total[0] === 0;
  $("empty").hidden = !nothing;
  $("empty").textContent = data.segments.length ? "No sample has such time." : "There are no samples.";
  if (view.root > 0 && tree.total[view.root] === 0)
    view.root = 0;
  measure();
  showHeading();
  showPath();
  showMatched();
  showDetails();
  redraw();
}

// ---- what people do ----

function zoom(place) {
  view.root = place;
  view.selected = place;
  view.hovered = 0;
  $("tip").hidden = true;
  measure();
  // The zoomed frame is to be seen, with a few of its callers.
  const y = (tree.depth[place] - 1) * ROW;
  scroll.scrollTop = Math.max(0, y - 4 * ROW);
  showPath();
  showMatched();
  showDetails();
  redraw();
}

function placeAt(event) {
  const box = canvas.getBoundingClientRect();
  const row = Math.floor((event.clientY - box.top + scroll.scrollTop) / ROW) + 1;
  const x = event.clientX - box.left;
  const hit = (view.rows[row] || []).find(([left, width]) => x >= left && x < left + width);
  return hit ? hit[2] : 0;
}

function hover(event) {
  const place = placeAt(event), tip = $("tip");
  if (place !== view.hovered) {
    view.hovered = place;
    canvas.style.cursor = place ? "pointer" : "default";
    showDetails();
    redraw();
  }
  tip.hidden = !place;
  if (!place)
    return;
  tip.replaceChildren(element("div", "name", nameOf(place)), element("div", "facts", factsOf(place).join("  ·  ")));
  const { offsetWidth: w, offsetHeight: h } = tip;
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - w - 8))}px`;
  tip.style.top = `${event.clientY + 20 + h > innerHeight ? event.clientY - h - 12 : event.clientY + 20}px`;
}

function leave() {
  view.hovered = 0;
  $("tip").hidden = true;
  showDetails();
  redraw();
}

function heaviest(place) {
  let best = 0;
  for (const child of tree.childrenOf(place))
    if (tree.total[child] > (best ? tree.total[best] : 0))
      best = child;
  return best;
}

function sibling(place, step) {
  const all = [...tree.childrenOf(tree.parent[place])].filter((p) => tree.total[p] > 0);
  return all[all.indexOf(place) + step] || place;
}

function select(place) {
  if (!place)
    return;
  if (!tree.isWithin(place, view.root) && !tree.isWithin(view.root, place))
    return;
  view.selected = place;
  view.hovered = 0;
  const y = (tree.depth[place] - 1) * ROW;
  if (y < scroll.scrollTop)
    scroll.scrollTop = y;
  else if (y + ROW > scroll.scrollTop + scroll.clientHeight)
    scroll.scrollTop = y + ROW - scroll.clientHeight;
  showDetails();
  redraw();
}

function goBack() {
  if (view.matches) {
    $("search").value = "";
    search();
  } else if (view.root) {
    zoom(0);
  }
}

function graphKey(event) {
  const at = view.selected;
  const actions = {
    ArrowDown: () => select(heaviest(at || view.root)),
    ArrowUp: () => select(tree.parent[at]),
    ArrowLeft: () => select(at ? sibling(at, -1) : heaviest(view.root)),
    ArrowRight: () => select(at ? sibling(at, 1) : heaviest(view.root)),
    Enter: () => zoom(at),
    " ": () => zoom(at),
    Home: () => zoom(0),
  };
  if (actions[event.key] && !event.ctrlKey && !event.altKey && !event.metaKey) {
    event.preventDefault();
    actions[event.key]();
  }
}

function pageKey(event) {
  if (event.key === "/" && document.activeElement !== $("search")) {
    event.preventDefault();
    $("search").focus();
    $("search").select();
  } else if (event.key === "Escape") {
    goBack();
  }
}

function search() {
  const wanted = $("search").value.trim().toLowerCase();
  view.matches = wanted ? data.frames.map((f) => f[0].toLowerCase().includes(wanted) ||
                                                 (f[2] || "").toLowerCase().includes(wanted)) : null;
  showMatched();
  redraw();
}

function choose() {
  view.mode = document.querySelector("input[name=mode]:checked").value;
  view.segment = Number($("segments").value || -1);
  tree.choose(view.segment, view.mode);
  showAll();
}

// ---- the start ----

function fillSegments() {
  const list = $("segments");
  list.hidden = data.segments.length < 2;
  list.append(new Option(`All ${data.segments.length} segments`, "-1"));
  data.segments.forEach((s, i) => {
    const time = new Date(s.start_wall_ms).toLocaleTimeString();
    list.append(new Option(`${s.endpoint || s.thread} · ${timeText(s.duration_ns / 1e3)} · ${time} · ${s.thread} ${s.tid}`,
                           String(i)));
  });
}

function fillLegend() {
  const present = new Set(data.frames.map((f) => KINDS[f[1]] || "unknown"));
  $("legend").replaceChildren(...KINDS.slice(1).concat(KINDS[0]).filter((kind) => present.has(kind)).map((kind) => {
    const item = document.createElement("li"), swatch = document.createElement("canvas");
    const scale = window.devicePixelRatio || 1;
    swatch.width = 24 * scale;
    swatch.height = 14 * scale;
    const c = swatch.getContext("2d");
    c.scale(scale, scale);
    fillKind(c, kind, 2, 0, 0, 24, 14);
    item.append(swatch, { python: "Python" }[kind] || kind);
    return item;
  }));
}

function restyle() {
  readTheme();
  fillLegend();
  redraw();
}

canvas.addEventListener("mousemove", hover);
canvas.addEventListener("mouseleave", leave);
canvas.addEventListener("click", (event) => {
  const place = placeAt(event);
  if (place)
    zoom(place);
});
canvas.addEventListener("keydown", graphKey);
document.addEventListener("keydown", pageKey);
scroll.addEventListener("scroll", () => { $("tip").hidden = true; redraw(); });
$("search").addEventListener("input", search);
$("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter")
    canvas.focus();
});
$("reset").addEventListener("click", () => zoom(0));
$("modes").addEventListener("change", choose);
$("segments").addEventListener("change", choose);
window.addEventListener("resize", () => { measure(); redraw(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);

readTheme();
fillSegments();
fillLegend();
showAll();
