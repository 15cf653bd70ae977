// Images beside the pointer over a chart, without a rerun. Plotly itself cannot show images on hover.
// data: { chart: key of the chart's container, panel, page: [before, after] of an image's address, side: px }
// The point's customdata (or its first item) is the panel's row, or -1 - page: a number; nothing else reaches the
// address. The point's text stands below the image, set as text, so that neither covers the other.
export default function (component) {
  const { data } = component;
  let box = document.getElementById("stage3-hover");
  if (!box) {
    box = document.createElement("div");
    box.id = "stage3-hover";
    box.setAttribute("aria-hidden", "true");
    Object.assign(box.style, {
      position: "fixed", zIndex: 10000, pointerEvents: "none", display: "none", padding: "6px",
      borderRadius: "8px", boxShadow: "0 6px 24px rgba(0,0,0,.28)", background: "var(--s3-paper, #fff)",
      border: "1px solid var(--s3-border, #ccc)",
    });
    box.append(document.createElement("img"), document.createElement("div"));
    Object.assign(box.lastChild.style, { fontSize: "12.5px", lineHeight: "1.35", whiteSpace: "pre-line", maxWidth: "260px" });
    (document.querySelector(".stApp") || document.body).appendChild(box);
  }
  const img = box.firstChild, label = box.lastChild;
  img.alt = "";
  const side = data.side || 220;
  let plot = null, mouse = { x: 0, y: 0 };
  const move = (e) => { mouse = { x: e.clientX, y: e.clientY }; if (box.style.display !== "none") place(); };
  const place = () => {
    const pad = 18, w = box.offsetWidth, h = box.offsetHeight;
    box.style.left = (mouse.x + pad + w > innerWidth ? mouse.x - pad - w : mouse.x + pad) + "px";
    box.style.top = Math.max(8, Math.min(mouse.y - h / 2, innerHeight - h - 8)) + "px";
  };
  const show = (event) => {
    const point = event.points && event.points[0];
    let row = point && point.customdata;
    if (Array.isArray(row) || ArrayBuffer.isView(row)) row = row[0];
    row = Number(row);
    if (!Number.isInteger(row)) return;
    const address = row < 0 ? data.page : data.panel;
    if (!address) return;
    label.textContent = typeof point.text === "string" ? point.text : "";
    img.onload = () => { place(); };
    img.onerror = () => { img.style.display = "none"; if (!label.textContent) hide(); };
    img.style.maxWidth = img.style.maxHeight = side + "px";
    img.style.display = "block";
    const source = address[0] + (row < 0 ? -1 - row : row) + address[1];
    if (img.getAttribute("src") !== source) img.setAttribute("src", source);
    box.style.display = "block";
    place();
  };
  const hide = () => { box.style.display = "none"; };
  const attach = () => {
    const found = document.querySelector(".st-key-" + CSS.escape(data.chart) + " .js-plotly-plot");
    if (found === plot || !found || !found.on) return;
    detach();
    plot = found;
    plot.on("plotly_hover", show);
    plot.on("plotly_unhover", hide);
    plot.addEventListener("mouseleave", hide);
  };
  const detach = () => {
    if (!plot) return;
    if (plot.removeListener) { plot.removeListener("plotly_hover", show); plot.removeListener("plotly_unhover", hide); }
    plot.removeEventListener("mouseleave", hide);
    plot = null;
  };
  document.addEventListener("mousemove", move);
  const timer = setInterval(attach, 400);  // the chart may be drawn again at any time
  attach();
  return () => { clearInterval(timer); detach(); hide(); document.removeEventListener("mousemove", move); };
}
