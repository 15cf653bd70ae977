// Short texts to click: filters that a click removes, groups with their color that a click opens.
// Every text is set as text, never as HTML.
// data: { items: [{ id, text, note, color, on }], hint, close: show a cross, list: one below the other }
// Trigger: pick (the id of an item).
export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let root = parentElement.querySelector(":scope > .s3c");
  if (!root) {
    root = document.createElement("div");
    parentElement.append(root);
  }
  root.className = "s3c" + (data.list ? " s3c-list" : "");
  const part = (name, text) => {
    const node = document.createElement("span");
    node.className = name;
    node.textContent = text;
    return node;
  };
  root.replaceChildren(...data.items.map((item) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "s3c-item" + (item.on ? " s3c-on" : "");
    button.title = data.hint;
    button.setAttribute("aria-label", item.text + ". " + data.hint);
    if (item.color) {
      const dot = part("s3c-dot", "");
      dot.style.background = item.color;
      button.append(dot);
    }
    button.append(part("s3c-text", item.text));
    if (item.note) button.append(part("s3c-note", item.note));
    if (data.close) button.append(part("s3c-note", "✕"));
    button.onclick = () => setTriggerValue("pick", item.id);
    return button;
  }));
}
