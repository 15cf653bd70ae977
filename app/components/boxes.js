// The panels of a page as boxes that a person moves, draws, deletes and puts in order; the server hears of it at Save.
// data: { token: other when the page or its panels are, image, ratio: width by height, corrected, most,
//   panels, dropped: [{ of, box: [x, y, w, h] shares of the page or null, text }] }
// Triggers: save (panels in reading order as [{ of, box }]), revert (true).
export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let root = parentElement.querySelector(":scope > .s3b");
  if (!root) {
    root = document.createElement("div");
    root.className = "s3b";
    parentElement.append(root);
  }
  if (root.dataset.token === data.token) return;  // a rerun of the page must not undo what is being drawn
  root.dataset.token = data.token;
  edit(root, data, setTriggerValue);
}

const LEAST = 0.005, STEP = 0.005, LEAP = 0.05;  // shares of the page

function edit(root, data, send) {
  const copy = (list) => list.map((p) => ({ ...p, box: p.box && [...p.box], moved: false }));
  let panels = copy(data.panels), dropped = copy(data.dropped), chosen = -1, before = [], sent = false;
  const first = JSON.stringify(panels);
  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const button = (text, label, act, name = "") => {
    const node = make("button", "s3b-button " + name, text);
    node.type = "button";
    node.title = label;
    node.setAttribute("aria-label", label);
    node.onclick = act;
    return node;
  };
  const stage = make("div", "s3b-stage"), side = make("div", "s3b-side"), bar = make("div", "s3b-bar");
  const list = make("ol", "s3b-list"), said = make("div", "s3b-said");
  said.setAttribute("role", "status");
  stage.style.aspectRatio = String(data.ratio);
  stage.style.setProperty("--s3b-ratio", data.ratio);
  const image = make("img");
  image.src = data.image;
  image.alt = "The page";
  image.draggable = false;
  stage.append(image);
  const heads = make("div", "s3b-heads");
  heads.append(...["left %", "top %", "width %", "height %"].map((t) => make("span", "", t)));
  heads.setAttribute("aria-hidden", "true");
  side.append(bar, said, heads, list);
  root.replaceChildren(stage, side);

  const remember = () => { before.push(JSON.stringify([panels, dropped, chosen])); if (before.length > 200) before.shift(); };
  const undo = () => {
    if (!before.length) return;
    [panels, dropped, chosen] = JSON.parse(before.pop());
    draw();
  };
  const fit = (box) => {
    const w = Math.min(Math.max(box[2], LEAST), 1), h = Math.min(Math.max(box[3], LEAST), 1);
    return [Math.min(Math.max(box[0], 0), 1 - w), Math.min(Math.max(box[1], 0), 1 - h), w, h];
  };
  const put = (i, box) => { panels[i].box = fit(box); panels[i].moved = true; };
  const choose = (i, focus) => {
    chosen = i;
    draw();
    if (focus && i >= 0) { const node = stage.querySelector(`[data-at="${i}"]`); if (node) node.focus(); }
  };
  const add = (panel) => {
    if (panels.length >= data.most) return;
    remember();
    panels.push(panel);
    choose(panels.length - 1, true);
  };
  const remove = (i) => {
    remember();
    const [gone] = panels.splice(i, 1);
    if (gone.of !== null) dropped.push(gone);
    choose(Math.min(i, panels.length - 1), true);
  };
  const shift = (i, by, focus) => {
    const to = i + by;
    if (to < 0 || to >= panels.length) return;
    remember();
    panels.splice(to, 0, panels.splice(i, 1)[0]);
    choose(to, focus);
  };
  const plain = () => ({ of: null, box: [0.3, 0.3, 0.4, 0.4], text: "", moved: true });
  const save = () => {
    sent = true;
    draw();
    send("save", panels.map((p) => ({ of: p.of, box: p.moved || p.of === null ? p.box : null })));
  };

  // --- the pointer: on a box moves it, on a handle sizes it, elsewhere draws a new one
  const at = (e) => {
    const r = stage.getBoundingClientRect();
    return [(e.clientX - r.left) / r.width, (e.clientY - r.top) / r.height];
  };
  stage.onpointerdown = (e) => {
    if (e.button !== 0) return;
    const node = e.target.closest(".s3b-box"), handle = e.target.dataset.handle, start = at(e);
    if (!node && panels.length >= data.most) return;
    e.preventDefault();
    const i = node ? Number(node.dataset.at) : panels.length;
    const old = node ? [...panels[i].box] : [...start, 0, 0];
    let began = false;
    stage.setPointerCapture(e.pointerId);
    if (node) choose(i, true);
    stage.onpointermove = (m) => {
      const now = at(m).map((v) => Math.min(Math.max(v, 0), 1)), dx = now[0] - start[0], dy = now[1] - start[1];
      if (!began) {
        if (Math.hypot(dx, dy) < 0.004) return;
        began = true;
        remember();
        if (!node) { panels.push({ of: null, box: null, text: "", moved: true }); chosen = i; }
      }
      if (!node) put(i, [Math.min(start[0], now[0]), Math.min(start[1], now[1]), Math.abs(dx), Math.abs(dy)]);
      else if (!handle) put(i, [old[0] + dx, old[1] + dy, old[2], old[3]]);
      else {
        let [x0, y0, x1, y1] = [old[0], old[1], old[0] + old[2], old[1] + old[3]];
        if (handle.includes("w")) x0 = Math.min(x0 + dx, x1 - LEAST);
        if (handle.includes("e")) x1 = Math.max(x1 + dx, x0 + LEAST);
        if (handle.includes("n")) y0 = Math.min(y0 + dy, y1 - LEAST);
        if (handle.includes("s")) y1 = Math.max(y1 + dy, y0 + LEAST);
        x0 = Math.max(x0, 0); y0 = Math.max(y0, 0); x1 = Math.min(x1, 1); y1 = Math.min(y1, 1);
        put(i, [x0, y0, x1 - x0, y1 - y0]);
      }
      draw();
    };
    stage.onpointerup = stage.onpointercancel = () => {
      stage.onpointermove = stage.onpointerup = stage.onpointercancel = null;
      if (began) choose(i, true);
    };
  };

  // --- the keyboard: on a box; nothing of it reaches the shortcuts of the page
  root.onkeydown = (e) => {
    e.stopPropagation();
    if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === "z") { e.preventDefault(); undo(); return; }
    if (!e.target.classList.contains("s3b-box")) return;
    const i = Number(e.target.dataset.at), by = e.shiftKey ? LEAP : STEP;
    const way = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] }[e.key];
    if (way) {
      e.preventDefault();
      remember();
      const [x, y, w, h] = panels[i].box;
      put(i, e.altKey ? [x, y, Math.min(w + way[0], 1 - x), Math.min(h + way[1], 1 - y)] : [x + way[0], y + way[1], w, h]);
      choose(i, true);
    } else if (e.key === "Delete" || e.key === "Backspace") { e.preventDefault(); remove(i); }
    else if (e.key === "[") { e.preventDefault(); shift(i, -1, true); }
    else if (e.key === "]") { e.preventDefault(); shift(i, 1, true); }
  };

  // --- drawing
  const percent = (v) => Math.round(1000 * v) / 10;
  const field = (i, k) => {
    const node = make("input", "s3b-field");
    node.inputMode = "decimal";
    node.value = String(percent(panels[i].box[k]));
    node.setAttribute("aria-label", `Panel ${i + 1}, ${["left", "top", "width", "height"][k]} in percent of the page`);
    node.title = ["Left", "Top", "Width", "Height"][k] + ", % of the page";
    node.onfocus = () => { if (chosen !== i) { chosen = i; marks(); } };
    node.onchange = () => {
      const value = Number(node.value.replace(",", "."));
      if (node.value.trim() === "" || !Number.isFinite(value)) { draw(); return; }
      remember();
      const box = [...panels[i].box];
      box[k] = value / 100;
      if (k === 0) box[0] = Math.min(box[0], 1 - box[2]);
      if (k === 1) box[1] = Math.min(box[1], 1 - box[3]);
      if (k === 2) box[2] = Math.min(box[2], 1 - box[0]);
      if (k === 3) box[3] = Math.min(box[3], 1 - box[1]);
      put(i, box);
      draw();
    };
    return node;
  };
  const marks = () => {
    for (const node of root.querySelectorAll("[data-at]")) node.classList.toggle("s3b-chosen", Number(node.dataset.at) === chosen);
  };
  const row = (panel, i) => {
    const node = make("li", "s3b-row");
    node.dataset.at = i;
    node.append(make("span", "s3b-number", String(i + 1)));
    const words = make("span", panel.text ? "s3b-words" : "s3b-words s3b-quiet",
      panel.text || (panel.of === null ? "new panel" : "no text"));
    words.title = panel.text;
    words.onclick = () => choose(i, true);
    node.append(words);
    const acts = make("span", "s3b-acts"), n = `panel ${i + 1}`;
    acts.append(button("↑", `Read ${n} earlier`, () => shift(i, -1)), button("↓", `Read ${n} later`, () => shift(i, 1)),
      button("✕", `Delete ${n}`, () => remove(i)));
    node.append(acts);
    const fields = make("span", "s3b-fields");
    if (panel.box) fields.append(...[0, 1, 2, 3].map((k) => field(i, k)));
    else fields.append(make("span", "s3b-quiet", "text without a box"),
      button("Draw", `Give ${n} a box`, () => { remember(); put(i, [0.3, 0.3, 0.4, 0.4]); choose(i, true); }));
    node.append(fields);
    return node;
  };
  const draw = () => {
    for (const node of stage.querySelectorAll(".s3b-box")) node.remove();
    panels.forEach((panel, i) => {
      if (!panel.box) return;
      const [x, y, w, h] = panel.box, node = make("div", "s3b-box");
      node.dataset.at = i;
      node.tabIndex = 0;
      node.setAttribute("role", "button");
      node.setAttribute("aria-label", `Panel ${i + 1}: left ${percent(x)}, top ${percent(y)}, width ${percent(w)}, ` +
        `height ${percent(h)} percent. Arrows move, Alt and arrows size, Delete deletes, [ and ] change the order.`);
      Object.assign(node.style, { left: 100 * x + "%", top: 100 * y + "%", width: 100 * w + "%", height: 100 * h + "%" });
      node.append(make("span", "s3b-tag", String(i + 1)));
      for (const way of ["nw", "n", "ne", "e", "se", "s", "sw", "w"]) {
        const handle = make("span", "s3b-handle s3b-" + way);
        handle.dataset.handle = way;
        node.append(handle);
      }
      node.onfocus = () => { if (chosen !== i) { chosen = i; marks(); } };
      stage.append(node);
    });
    const changed = JSON.stringify(panels) !== first, full = panels.length >= data.most;
    const store = button("Save", "Save these panels beside the data", save, "s3b-primary");
    store.disabled = !changed || sent;
    const more = button("Add panel", "Add a panel in the middle; or draw one on the page", () => add(plain()));
    more.disabled = full;
    const back = button("Undo", "Undo the last change (Ctrl+Z)", undo);
    back.disabled = !before.length;
    bar.replaceChildren(store, more, back);
    if (data.corrected) bar.append(button("As in the file", "Drop the corrections of this page", () => { sent = true; send("revert", true); }));
    said.textContent = `${panels.length} panel${panels.length === 1 ? "" : "s"}${changed ? ", not saved" : ""}` +
      (full ? `; a page may have ${data.most}` : "");
    list.replaceChildren(...panels.map(row));
    if (dropped.length) {
      const rest = make("li", "s3b-rest", "Not used: ");
      dropped.forEach((panel, k) => {
        const text = panel.text ? panel.text.slice(0, 24) : `entry ${panel.of}`;
        rest.append(button("+ " + text, `Use this panel: ${panel.text || "no text"}`, () => {
          if (full) return;
          remember();
          dropped.splice(k, 1);
          panels.push({ ...panel, box: panel.box || [0.3, 0.3, 0.4, 0.4], moved: true });
          choose(panels.length - 1, true);
        }));
      });
      list.append(rest);
    }
    marks();
  };
  draw();
}
