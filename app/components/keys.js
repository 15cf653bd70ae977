// "g" then a letter opens a view; "?" lists the keys. Nothing happens while a person types.
// The back button leads from view to view: what a view writes into its own address (Streamlit pushes an entry for every
// parameter) replaces the entry that is there.
// data: { views: [[letter, title]], run: the chosen run, which belongs into the address }
const ownAddress = () => {
  if (window.stage3History) return;
  const push = history.pushState.bind(history), replace = history.replaceState.bind(history);
  window.stage3History = true;
  history.pushState = (state, title, url) => {
    const next = new URL(url, location.href);
    const inView = next.pathname === location.pathname || new URLSearchParams(location.search).has("view");
    (inView ? replace : push)(state, title, url);
  };
  // an old entry of the form /?view=page was only the way to /page: go on to the one before it
  addEventListener("popstate", () => { if (new URLSearchParams(location.search).has("view")) history.back(); });
};

const complete = (run) => {
  const query = new URLSearchParams(location.search);
  if (query.get("run") === run && !query.has("view")) return;
  query.delete("view");
  query.set("run", run);
  history.replaceState(history.state, "", location.pathname + "?" + query + location.hash);
};

export default function (component) {
  ownAddress();
  if (component.data.run) complete(component.data.run);
  const views = component.data.views;
  let armed = 0;
  const typing = (e) => e.target.closest && e.target.closest("input, textarea, select, [contenteditable=true], [role=combobox]");
  const open = (title) => {
    for (const a of document.querySelectorAll('[data-testid="stTopNavLink"], [data-testid="stSidebarNavLink"]'))
      if (a.textContent.trim().endsWith(title)) { a.click(); return; }
  };
  const help = () => {
    const old = document.getElementById("stage3-keys");
    if (old) { old.remove(); return; }
    const box = document.createElement("div");
    box.id = "stage3-keys";
    box.setAttribute("role", "dialog");
    box.setAttribute("aria-label", "Keyboard shortcuts");
    Object.assign(box.style, {
      position: "fixed", right: "24px", bottom: "24px", zIndex: 10001, padding: "14px 18px", borderRadius: "10px",
      background: "var(--s3-paper, #fff)", color: "inherit", lineHeight: "1.7",
      border: "1px solid var(--s3-border, #ccc)", boxShadow: "0 6px 24px rgba(0,0,0,.28)", fontSize: "14px",
    });
    const rows = [["?", "this list"], ["Esc", "close"], ...views.map(([k, t]) => ["g " + k, t])];
    for (const [key, what] of rows) {
      const row = document.createElement("div"), k = document.createElement("kbd");
      k.textContent = key;
      Object.assign(k.style, { display: "inline-block", minWidth: "3em", fontFamily: "monospace" });
      row.append(k, what);
      box.append(row);
    }
    (document.querySelector(".stApp") || document.body).append(box);
  };
  const press = (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || typing(e)) return;
    if (e.key === "?") { help(); return; }
    if (e.key === "Escape") { const b = document.getElementById("stage3-keys"); if (b) b.remove(); return; }
    if (e.key === "g") { armed = Date.now(); return; }
    if (Date.now() - armed < 1200) {
      const view = views.find(([k]) => k === e.key);
      armed = 0;
      if (view) { e.preventDefault(); open(view[1]); }
    }
  };
  document.addEventListener("keydown", press);
  return () => document.removeEventListener("keydown", press);
}
