"use strict";
// The page reads without this: it only shows the numbers of the moment under the pointer, and unfolds for print.
const time = document.querySelector(".time"), plot = time && time.querySelector(".axis");
if (plot) {
  const end = Number(time.dataset.end), bucket = Number(time.dataset.bucket);
  const now = document.getElementById("now"), cursor = document.getElementById("cursor");
  const numbers = [...time.querySelectorAll("[data-values]")].map((at) =>
    ({ at, whole: at.textContent, values: at.dataset.values.split(","), unit: at.dataset.unit }));
  const clock = (us) => {
    const s = us / 1e6, two = (n) => String(Math.floor(n)).padStart(2, "0");
    const hours = s >= 3600 ? Math.floor(s / 3600) + ":" + two(s / 60 % 60) : Math.floor(s / 60);
    return hours + ":" + two(s % 60) + "." + Math.floor(s * 10 % 10);
  };
  time.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect(), part = (event.clientX - box.left) / box.width;
    if (part < 0 || part > 1) return leave();
    cursor.hidden = false;
    cursor.style.left = event.clientX - time.getBoundingClientRect().left - time.clientLeft + "px";
    now.textContent = clock(part * end);
    for (const { at, values, unit } of numbers) {
      const value = values[Math.floor(part * end / bucket)];
      at.textContent = value ? value + unit : "none";
    }
  });
  const leave = () => {
    cursor.hidden = true;
    now.textContent = "";
    for (const { at, whole } of numbers) at.textContent = whole;
  };
  time.addEventListener("pointerleave", leave);
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
// A link into a fold opens it.
const unfold = () => {
  const to = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  for (let at = to || null; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
};
addEventListener("hashchange", unfold);
unfold();
