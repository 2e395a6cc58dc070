// Draws a scene of helix_kit.plots and answers pointer and keys. It knows shapes, never what limits a plan:
// every number and word comes from Python. No library, no network.

const NS = "http://www.w3.org/2000/svg";

function make(tag, attributes, parent) {
  const element = document.createElementNS(NS, tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  if (parent) parent.appendChild(element);
  return element;
}

const colour = (role) => (role ? `var(--hk-${role})` : "none");
const list = (points) => points.map((p) => p.join(",")).join(" ");
const curve = (p) => `M${p[0]} C${p[1]} ${p[2]} ${p[3]}`;

const SHAPES = {
  rect: (i) => ["rect", { x: i.x, y: i.y, width: i.width, height: i.height, rx: i.radius || null,
    fill: colour(i.fill), stroke: colour(i.stroke), "stroke-width": i.stroke ? i.stroke_width : null }],
  curve: (i) => ["path", { d: curve(i.points), fill: "none", stroke: colour(i.stroke), "stroke-width": i.width,
    "stroke-dasharray": i.dashed ? "5 3" : null }],
  polygon: (i) => [i.fill ? "polygon" : "polyline", { points: list(i.points), fill: colour(i.fill),
    stroke: colour(i.stroke), "stroke-width": i.stroke ? i.stroke_width : null }],
  text: (i) => ["text", { x: i.x, y: i.y, "font-size": i.size, "text-anchor": i.anchor, fill: colour(i.fill),
    "font-weight": i.bold ? 600 : null, transform: i.upright ? `rotate(-90 ${i.x} ${i.y})` : null,
    stroke: i.halo ? colour("paper") : null, "stroke-width": i.halo ? 3 : null, "stroke-linejoin": "round",
    "paint-order": i.halo ? "stroke" : null }],
};

function isDark(model) {
  const theme = model.get("theme");
  if (theme !== "auto") return theme === "dark";
  const jupyter = document.body.dataset.jpThemeLight;
  if (jupyter !== undefined) return jupyter === "false";
  return window.matchMedia("(prefers-color-scheme: dark)").matches;
}

function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "hk-flow";
  root.innerHTML = `
    <div class="hk-bar" role="toolbar" aria-label="flow graph">
      <input type="search" class="hk-search" placeholder="find a machine" aria-label="find a machine" size="16">
      <span class="hk-found" aria-live="polite"></span>
      <select class="hk-pipeline" aria-label="highlight a pipeline"></select>
      <button class="hk-in" title="zoom in (+)" aria-label="zoom in">+</button>
      <button class="hk-out" title="zoom out (-)" aria-label="zoom out">−</button>
      <button class="hk-home" title="whole picture, bars back in place (0)">reset</button>
      <button class="hk-theme" title="light or dark" aria-label="light or dark">◐</button>
    </div>
    <div class="hk-canvas"></div>
    <div class="hk-panel" aria-live="polite" data-empty="Hover or click a machine or a link; arrow keys move between machines."></div>
    <div class="hk-tip" hidden></div>`;
  el.appendChild(root);
  const at = (name) => root.querySelector(`.hk-${name}`);
  const svg = make("svg", { role: "group" });
  at("canvas").appendChild(svg);

  let scene = null;
  let nodes = new Map(); // name -> {g, data, hint, offset}
  let links = []; // {g, data, hint, curves: [[element, points]]}
  let view = null; // x, y, width, height of the part on show
  let editCount = 0;

  // ---- drawing -----------------------------------------------------------------------------------------------
  function paint() {
    const theme = model.get("themes")[isDark(model) ? "dark" : "light"];
    for (const [role, value] of Object.entries(theme)) root.style.setProperty(`--hk-${role}`, value);
    root.dataset.theme = isDark(model) ? "dark" : "light";
  }

  function draw() {
    scene = model.get("scene");
    if (!scene || !scene.groups) return;
    const focused = svg.contains(document.activeElement) ? document.activeElement.dataset.node : null;
    svg.replaceChildren();
    svg.setAttribute("aria-label", scene.title);
    nodes = new Map();
    links = [];
    for (const group of scene.groups) {
      const g = make("g", { class: group.role }, svg);
      const curves = [];
      for (const item of group.items) {
        const element = make(...SHAPES[item.shape](item), g);
        if (item.shape === "text") element.textContent = item.text;
        if (item.shape === "curve") curves.push([element, item.points]);
      }
      if (group.role === "node") addNode(g, group);
      else if (group.role === "edge" || group.role === "entry") addLink(g, group, curves);
      else if (group.hint) hover(g, () => group.hint);
    }
    if (!view || view.base !== `${scene.width}x${scene.height}`) home();
    else showView();
    place();
    mark();
    if (focused && nodes.has(focused)) nodes.get(focused).g.focus();
  }

  function addNode(g, group) {
    const name = group.data.node;
    const box = group.items[0];
    g.dataset.node = name;
    for (const [key, value] of Object.entries({ tabindex: 0, role: "button", "aria-label": group.hint.replaceAll("\n", ", ") })) {
      g.setAttribute(key, value);
    }
    make("rect", { class: "hk-ring", x: box.x - 3, y: box.y - 3, width: box.width + 6, height: box.height + 6, rx: 5 }, g);
    nodes.set(name, { g, data: group.data, hint: group.hint, box, offset: 0 });
    hover(g, () => group.hint, () => connected(name));
    g.addEventListener("keydown", (event) => keyOnNode(event, name));
    g.addEventListener("pointerdown", (event) => grab(event, name, "move"));
    if (model.get("editable")) {
      for (const [end, x] of [["start", box.x - 4], ["end", box.x + box.width - 4]]) {
        const handle = make("rect", { class: "hk-handle", x, y: box.y, width: 8, height: box.height, "data-end": end }, g);
        handle.addEventListener("pointerdown", (event) => grab(event, name, end));
      }
    }
  }

  function addLink(g, group, curves) {
    g.dataset.source = group.data.source;
    g.dataset.target = group.data.target;
    links.push({ g, data: group.data, hint: group.hint, curves });
    if (group.role !== "edge") return;
    // A wide invisible twin makes thin ribbons easy to hit.
    make("path", { d: curve(curves[0][1]), fill: "none", stroke: "transparent", "stroke-width": 9 }, g);
    curves.push([g.lastChild, curves[0][1]]);
    hover(g, () => group.hint, () => new Set([group.data.source, group.data.target]));
    g.addEventListener("click", () => { at("panel").textContent = group.hint; });
  }

  function place() {
    // Bars that the reader has moved, and the ends of the ribbons that hang on them.
    const offsets = model.get("offsets") || {};
    for (const [name, node] of nodes) {
      node.offset = offsets[name] || 0;
      node.g.setAttribute("transform", `translate(0 ${node.offset})`);
    }
    for (const link of links) {
      const from = nodes.get(link.data.source)?.offset || 0;
      const to = nodes.get(link.data.target)?.offset || 0;
      if (link.curves.length === 0) link.g.setAttribute("transform", `translate(0 ${to})`);
      for (const [element, p] of link.curves) {
        // A ribbon to the coordinator stays level with the bar it hangs on.
        const a = nodes.has(link.data.source) ? from : to;
        const b = nodes.has(link.data.target) ? to : from;
        element.setAttribute("d", curve(p.map(([x, y], i) => [x, y + (i < 2 ? a : b)])));
      }
    }
  }

  // ---- what stands out ----------------------------------------------------------------------------------------
  function connected(name) {
    const near = new Set([name]);
    for (const { data } of links) if (data.source === name || data.target === name) near.add(data.source).add(data.target);
    return near;
  }

  function nodesOf(node) { return node.data.nodes || [node.data.node]; }

  function mark(hovered) {
    const chosen = new Set(model.get("highlighted") || []);
    const selected = model.get("selected");
    const text = (model.get("search") || "").trim().toLowerCase();
    let found = 0;
    for (const [name, node] of nodes) {
      const words = `${nodesOf(node).join(" ")} ${node.data.kind} ${node.data.region}`.toLowerCase();
      const hit = text !== "" && words.includes(text);
      found += hit ? 1 : 0;
      const inPipeline = chosen.size === 0 || nodesOf(node).some((m) => chosen.has(m));
      node.g.classList.toggle("hk-found", hit);
      node.g.classList.toggle("hk-selected", name === selected);
      node.g.setAttribute("aria-pressed", name === selected);
      node.g.classList.toggle("hk-faded", !inPipeline || (hovered ? !hovered.nodes.has(name) : text !== "" && !hit));
    }
    const shown = (name) => !nodes.has(name) || chosen.size === 0 || nodesOf(nodes.get(name)).some((m) => chosen.has(m));
    for (const { g, data } of links) {
      const near = !hovered || (hovered.centre ? [data.source, data.target].includes(hovered.centre)
        : hovered.nodes.has(data.source) && hovered.nodes.has(data.target));
      g.classList.toggle("hk-faded", !near || !shown(data.source) || !shown(data.target));
    }
    at("found").textContent = text === "" ? "" : `${found} found`;
    if (selected && nodes.has(selected)) at("panel").textContent = nodes.get(selected).hint.replaceAll("\n", " · ");
    else if (!selected) at("panel").textContent = "";
  }

  function hover(g, words, near) {
    g.addEventListener("pointerenter", () => {
      if (near) mark({ nodes: near(), centre: g.dataset.node });
      tip(words(), g);
    });
    g.addEventListener("pointerleave", () => { at("tip").hidden = true; if (near) mark(); });
    g.addEventListener("focus", () => tip(words(), g));
    g.addEventListener("blur", () => { at("tip").hidden = true; });
  }

  function tip(text, g) {
    const box = at("tip");
    box.textContent = text;
    box.hidden = false;
    const outer = root.getBoundingClientRect();
    const inner = g.getBoundingClientRect();
    const x = Math.min(inner.left - outer.left, outer.width - box.offsetWidth - 8);
    const above = inner.top - outer.top - box.offsetHeight - 8;
    box.style.left = `${Math.max(4, x)}px`;
    box.style.top = `${above > 0 ? above : inner.bottom - outer.top + 8}px`;
  }

  function select(name) {
    model.set("selected", model.get("selected") === name ? "" : name);
    model.save_changes();
  }

  // ---- zoom and pan --------------------------------------------------------------------------------------------
  function home() {
    view = { x: 0, y: 0, width: scene.width, height: scene.height, base: `${scene.width}x${scene.height}` };
    showView();
  }

  function showView() {
    svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
    svg.classList.toggle("hk-zoomed", view.width < scene.width - 1);
  }

  function zoom(factor, centre) {
    const width = Math.min(scene.width, Math.max(scene.width / 12, view.width * factor));
    const ratio = width / view.width;
    const c = centre || { x: view.x + view.width / 2, y: view.y + view.height / 2 };
    view.x = c.x - (c.x - view.x) * ratio;
    view.y = c.y - (c.y - view.y) * ratio;
    view.width = width;
    view.height *= ratio;
    keepInside();
  }

  function keepInside() {
    view.x = Math.min(Math.max(0, view.x), scene.width - view.width);
    view.y = Math.min(Math.max(0, view.y), scene.height - view.height);
    showView();
  }

  function toScene(event) {
    const box = svg.getBoundingClientRect();
    return { x: view.x + ((event.clientX - box.left) / box.width) * view.width,
      y: view.y + ((event.clientY - box.top) / box.height) * view.height };
  }

  svg.addEventListener("wheel", (event) => {
    // A plain wheel scrolls the notebook, as everywhere; with Ctrl or Cmd it zooms.
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, toScene(event));
  }, { passive: false });

  function follow(move, done) {
    const finish = (event) => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", finish);
      window.removeEventListener("pointercancel", finish);
      done(event);
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", finish);
    window.addEventListener("pointercancel", finish);
  }

  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || view.width >= scene.width - 1) return;
    let last = toScene(event);
    follow((moved) => {
      const now = toScene(moved);
      view.x -= now.x - last.x;
      view.y -= now.y - last.y;
      keepInside();
      last = toScene(moved);
    }, () => {});
  });

  // ---- dragging bars -------------------------------------------------------------------------------------------
  function grab(event, name, part) {
    if (event.button !== 0) return;
    event.stopPropagation();
    const node = nodes.get(name);
    const begin = toScene(event);
    const offset = node.offset;
    let dragged = false;
    let ghost = null;
    let wish = null;
    follow((moved) => {
      const now = toScene(moved);
      const dx = now.x - begin.x;
      const dy = now.y - begin.y;
      if (!dragged && Math.hypot(dx, dy) < 4) return;
      dragged = true;
      at("tip").hidden = true;
      const layers = Math.round(dx / scene.layer_width);
      if (model.get("editable") && (part !== "move" || Math.abs(dx) > Math.abs(dy))) {
        wish = range(node, part, layers);
        ghost = ghost || make("rect", { class: "hk-ghost", y: node.box.y + node.offset - 2, height: node.box.height + 4, rx: 4 }, svg);
        ghost.setAttribute("x", scene.layer_x0 + wish.start * scene.layer_width);
        ghost.setAttribute("width", (wish.end - wish.start) * scene.layer_width);
        at("panel").textContent = `${name}: layers ${wish.start}–${wish.end - 1}`;
      } else if (part === "move") {
        wish = null;
        if (ghost) { ghost.remove(); ghost = null; }
        shift(name, offset, dy);
      }
    }, () => {
      if (ghost) ghost.remove();
      if (!dragged) { select(name); return; }
      if (wish) {
        place(); // whatever the bar was lifted by before it went sideways
        if (wish.start !== node.data.start || wish.end !== node.data.end) {
          model.set("edit", { node: name, start: wish.start, end: wish.end, count: ++editCount });
          model.save_changes();
        }
      } else if (moved !== null) {
        model.set("offsets", moved);
        model.save_changes();
      }
      moved = null;
    });
  }

  let moved = null;
  function shift(name, offset, dy) {
    moved = { ...model.get("offsets"), [name]: offset + dy };
    const kept = model.get("offsets");
    model.set("offsets", moved, { silent: true });
    place();
    model.set("offsets", kept, { silent: true });
  }

  function range(node, part, layers) {
    const total = scene.num_layers;
    const held = node.data.end - node.data.start;
    if (part === "start") return { start: Math.max(0, Math.min(node.data.end - 1, node.data.start + layers)), end: node.data.end };
    if (part === "end") return { start: node.data.start, end: Math.min(total, Math.max(node.data.start + 1, node.data.end + layers)) };
    const start = Math.max(0, Math.min(total - held, node.data.start + layers));
    return { start, end: start + held };
  }

  // ---- keys ----------------------------------------------------------------------------------------------------
  function keyOnNode(event, name) {
    const { key } = event;
    if (key === "Enter" || key === " ") select(name);
    else if (key.startsWith("Arrow")) step(name, key);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function step(name, key) {
    // The nearest bar in that direction; sideways counts along the layers, up and down along the lanes.
    const middle = ({ box, offset }) => [box.x + box.width / 2, box.y + offset + box.height / 2];
    const [x, y] = middle(nodes.get(name));
    const [ux, uy] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[key];
    let best = null;
    for (const [other, node] of nodes) {
      const [dx, dy] = [middle(node)[0] - x, middle(node)[1] - y];
      const along = dx * ux + dy * uy;
      const across = Math.abs(dx * uy) + Math.abs(dy * ux);
      if (other !== name && along > 1) {
        const cost = along + 2 * across;
        if (!best || cost < best.cost) best = { cost, other };
      }
    }
    if (best) nodes.get(best.other).g.focus();
  }

  root.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select")) { if (event.key === "Escape") event.target.blur(); return; }
    if (event.key === "+" || event.key === "=") zoom(1 / 1.3);
    else if (event.key === "-") zoom(1.3);
    else if (event.key === "0") reset();
    else if (event.key === "/") at("search").focus();
    else if (event.key === "Escape") { model.set("selected", ""); model.set("highlighted", []); model.save_changes(); }
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  // ---- tool bar ------------------------------------------------------------------------------------------------
  function reset() {
    model.set("offsets", {});
    model.save_changes();
    home();
    place();
  }

  function menu() {
    const options = [new Option("all pipelines", "")];
    model.get("pipelines").forEach((p, i) => options.push(new Option(p.label, i)));
    at("pipeline").replaceChildren(...options);
    choose();
  }

  function choose() {
    const chosen = [...(model.get("highlighted") || [])].sort().join();
    const index = model.get("pipelines").findIndex((p) => [...p.nodes].sort().join() === chosen);
    at("pipeline").value = chosen === "" || index < 0 ? "" : String(index);
  }

  at("in").addEventListener("click", () => zoom(1 / 1.3));
  at("out").addEventListener("click", () => zoom(1.3));
  at("home").addEventListener("click", reset);
  at("theme").addEventListener("click", () => { model.set("theme", isDark(model) ? "light" : "dark"); model.save_changes(); });
  at("search").addEventListener("input", () => { model.set("search", at("search").value); model.save_changes(); });
  at("pipeline").addEventListener("change", () => {
    const index = at("pipeline").value;
    model.set("highlighted", index === "" ? [] : model.get("pipelines")[Number(index)].nodes);
    model.save_changes();
  });

  const handlers = {
    "change:scene": draw, "change:editable": draw, "change:pipelines": menu, "change:theme": paint, "change:offsets": place,
    "change:selected": () => mark(), "change:highlighted": () => { choose(); mark(); },
    "change:search": () => { if (at("search").value !== model.get("search")) at("search").value = model.get("search"); mark(); },
  };
  for (const [name, handler] of Object.entries(handlers)) model.on(name, handler);
  const watcher = new MutationObserver(paint); // JupyterLab changes its theme by an attribute of <body>
  watcher.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  paint();
  menu();
  at("search").value = model.get("search") || "";
  draw();
  return () => {
    for (const [name, handler] of Object.entries(handlers)) model.off(name, handler);
    watcher.disconnect();
  };
}

export default { render };
