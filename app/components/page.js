// A page's image with a numbered frame per panel; a click on a frame, or Enter on it, chooses the panel.
// data: { image: address, alt, ratio: width by height, focus: place of the chosen panel or -1, boxes: [[x, y, w, h] or null] }
// Triggers: pick (the place of the panel in reading order).
export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let root = parentElement.querySelector(":scope > .s3p");
  if (!root) {
    root = document.createElement("div");
    root.className = "s3p";
    parentElement.append(root);
  }
  root.replaceChildren();
  root.style.aspectRatio = String(data.ratio);
  const image = document.createElement("img");
  image.src = data.image;
  image.alt = data.alt;
  root.append(image);
  // small ones last: a panel that lies within another one can be clicked
  const order = data.boxes.map((box, i) => [box, i]).filter(([box]) => box).sort(([a], [b]) => b[2] * b[3] - a[2] * a[3]);
  for (const [[x, y, w, h], i] of order) {
    const frame = document.createElement("button");
    frame.type = "button";
    frame.className = i === data.focus ? "s3p-frame s3p-focus" : "s3p-frame";
    frame.setAttribute("aria-label", `Panel ${i + 1}`);
    frame.setAttribute("aria-pressed", String(i === data.focus));
    Object.assign(frame.style, { left: `${100 * x}%`, top: `${100 * y}%`, width: `${100 * w}%`, height: `${100 * h}%` });
    const number = document.createElement("span");
    number.textContent = String(i + 1);
    if (x < 0.02) number.classList.add("s3p-inside");
    frame.append(number);
    frame.onclick = () => setTriggerValue("pick", i);
    root.append(frame);
  }
}
