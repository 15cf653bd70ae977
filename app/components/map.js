// Reports which part of a map is shown, so that the address and the next drawing keep it; fits the map to the window.
// data: { charts: keys of the charts' containers }
// Trigger: zoom ({ chart: index, range: [x0, x1, y0, y1], or null for the whole map,
// height: of the chart in pixels, for the next drawing: one that must be stretched shows another part }).
export default function (component) {
  const { data, setTriggerValue } = component;
  const kept = (window.stage3Zoom = window.stage3Zoom || { pending: null });
  const plots = data.charts.map(() => null);
  let timer = 0;
  const send = () => {
    timer = 0;
    const value = kept.pending;
    kept.pending = null;
    if (value) setTriggerValue("zoom", value);
  };
  const arm = () => { clearTimeout(timer); timer = setTimeout(send, 350); };
  const listener = (index) => (event) => {
    const moved = Object.keys(event || {}).filter((k) => k.startsWith("xaxis.") || k.startsWith("yaxis."));
    if (!moved.length || !plots[index]) return;
    const { xaxis, yaxis } = plots[index].plot._fullLayout;
    const all = moved.some((k) => k.endsWith("autorange"));
    const height = plots[index].plot._fullLayout.height;
    kept.pending = { chart: index, range: all ? null : [...xaxis.range, ...yaxis.range], height };
    arm();
  };
  const detach = (index) => {
    const old = plots[index];
    if (old && old.plot.removeListener) old.plot.removeListener("plotly_relayout", old.heard);
    plots[index] = null;
  };
  const attach = () => {
    data.charts.forEach((key, index) => {
      const plot = document.querySelector(".st-key-" + CSS.escape(key) + " .js-plotly-plot");
      if (!plot || !plot.on || (plots[index] && plots[index].plot === plot)) return;
      detach(index);
      const heard = listener(index);
      plot.on("plotly_relayout", heard);
      plots[index] = { plot, heard };
    });
    fit();
  };
  const fit = () => {
    const board = document.querySelector(".st-key-map-board");
    const main = document.querySelector('[data-testid="stMain"]');
    if (!board || !main) return;
    const top = board.getBoundingClientRect().top + main.scrollTop;
    document.documentElement.style.setProperty("--s3-board", Math.max(440, innerHeight - top - 16) + "px");
  };
  if (kept.pending) arm();
  addEventListener("resize", fit);
  const watch = setInterval(attach, 300);  // a chart may be drawn again at any time
  attach();
  return () => {
    clearTimeout(timer);
    clearInterval(watch);
    removeEventListener("resize", fit);
    plots.forEach((_, index) => detach(index));
  };
}
