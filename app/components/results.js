// Ranked panels as cards: lists of texts or tiles of images. Every text is set as text, never as HTML.
// This part is sent once per page; a list itself is drawn by a stub that calls it, so that an action stays small.
// data: { mode: "text" | "image" | "strip" | "compact", empty, hint, open: label, prefix, suffix: parts of an image's address,
//   items: [{ row, rank, score, text, where, tag, tone, bare: no image, gap,
//     note: a quiet last line, ways: what found it, as short texts, bar: share of the bar, else the score }] }
// Triggers: query (a panel's row, to search with it), open (a panel's row, to open its page).
export default function () {
  window.stage3Results = draw;
}

function draw(component) {
  const { data, parentElement, setTriggerValue } = component;
  let root = parentElement.querySelector(":scope > .s3r");
  if (!root) {
    root = document.createElement("div");
    parentElement.append(root);
  }
  root.className = "s3r s3r-" + data.mode;
  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined && text !== "") node.textContent = text;
    return node;
  };
  const card = (item) => {
    const box = make("div", "s3r-card" + (item.tone ? " s3r-" + item.tone : ""));
    if (item.gap) box.classList.add("s3r-apart");
    const main = make("button", "s3r-main");
    main.type = "button";
    main.title = data.hint;
    main.setAttribute("aria-label", (item.rank ? "Rank " + item.rank + ": " : "") + item.where + ". " + data.hint);
    main.onclick = () => setTriggerValue("query", item.row);
    const frame = make("span", "s3r-image");
    if (!item.bare) {
      const img = make("img");
      img.loading = "lazy";
      img.decoding = "async";
      img.alt = item.where;
      img.src = data.prefix + Number(item.row) + data.suffix;
      img.onerror = () => { img.remove(); frame.classList.add("s3r-noimage"); frame.textContent = "no image"; };
      frame.append(img);
    } else {
      frame.classList.add("s3r-noimage");
      frame.textContent = "no image";
    }
    const body = make("span", "s3r-body");
    if (item.rank) {
      const head = make("span", "s3r-head");
      head.append(make("span", "s3r-rank", item.rank));
      if (item.tag) head.append(make("span", "s3r-tag", item.tag));
      const bar = make("span", "s3r-bar"), fill = make("span");
      fill.style.width = Math.max(0, Math.min(1, item.bar ?? item.score)) * 100 + "%";
      bar.append(fill);
      head.append(bar, make("span", "s3r-score", item.score.toFixed(3)));
      body.append(head);
      if (item.ways) {
        const ways = make("span", "s3r-ways");
        ways.append(...item.ways.map((way) => make("span", "s3r-tag", way)));
        body.append(ways);
      }
    }
    body.append(make("span", item.text ? "s3r-words" : "s3r-words s3r-textless", item.text || "no text"));
    if (item.note) body.append(make("span", "s3r-where", item.note));
    main.append(frame, body);
    box.append(main);
    if (data.open) {
      const foot = make("div", "s3r-foot");
      foot.append(make("span", "s3r-where", item.where));
      const open = make("button", "s3r-open", data.open);
      open.type = "button";
      open.setAttribute("aria-label", data.open + ": " + item.where);
      open.onclick = () => setTriggerValue("open", item.row);
      foot.append(open);
      box.append(foot);
    }
    return box;
  };
  root.replaceChildren(...data.items.map(card));
  if (!data.items.length) root.append(make("div", "s3r-empty", data.empty));
}
