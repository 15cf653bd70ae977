// Scrolls a container to the top of the page when the token is new; it may be drawn a moment later.
// data: { target: a CSS selector, token: "" for nothing }
export default function (component) {
  const { target, token } = component.data;
  if (!token || window.stage3Seen === token) return;
  window.stage3Seen = token;
  let left = 40;
  const go = () => {
    const box = document.querySelector(target);
    if (box) {
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      box.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
    } else if (left-- > 0) setTimeout(go, 100);
  };
  go();
}
