// Sample sheets with one slider for all chosen runs. #m-sheets-list says which there are; it may grow at any time.
const list = document.getElementById("m-sheets-list");
const slider = element.querySelector("input");
const label = element.querySelector("output");
const pictures = element.querySelector(".m-sheets-pictures");
const known = new Map();
let runs = [], steps = [], wanted = null; // wanted: the step to stay at; null: the newest

const fetched = (run, step) => {
  const key = `${run}\n${step}`;
  if (!known.has(key)) {
    known.set(key, server.sheet_of([run, step]));
    if (known.size > 60) known.delete(known.keys().next().value);
  }
  return known.get(key);
};
const show = async () => {
  const at = wanted === null ? steps.length - 1 : Math.max(0, steps.filter((step) => step <= wanted).length - 1);
  element.querySelector(".m-sheets").hidden = !steps.length;
  element.querySelector(".m-none").hidden = steps.length > 0;
  if (!steps.length) return;
  slider.max = steps.length - 1;
  slider.disabled = steps.length < 2;
  slider.value = at;
  const step = steps[at];
  label.textContent = `step ${step.toLocaleString("en")}${at === steps.length - 1 ? ", newest" : ""}`;
  slider.setAttribute("aria-valuetext", label.textContent);
  const shown = runs.map((run) => ({ name: run.name, step: run.steps.filter((each) => each <= step).pop() }));
  while (pictures.children.length > shown.length) pictures.lastChild.remove();
  while (pictures.children.length < shown.length) {
    const figure = pictures.appendChild(document.createElement("figure"));
    figure.appendChild(document.createElement("figcaption"));
    figure.appendChild(document.createElement("img"));
  }
  shown.forEach(async ({ name, step }, i) => {
    const [caption, image] = pictures.children[i].children;
    const told = step === undefined ? "none so far" : `step ${step.toLocaleString("en")}`;
    caption.textContent = runs.length > 1 ? `${name}, ${told}` : "";
    image.hidden = step === undefined;
    if (step === undefined || image.dataset.key === `${name}\n${step}`) return;
    image.dataset.key = `${name}\n${step}`;
    const source = await fetched(name, step);
    if (image.dataset.key !== `${name}\n${step}`) return;
    image.hidden = !source;
    if (source) image.src = source; else caption.textContent = `${name}, ${told}: cannot be read`;
    image.alt = `Sample sheet of ${name} after ${step} steps`;
  });
};
const read = () => {
  const data = list.querySelector("[data-runs]");
  runs = data ? JSON.parse(data.dataset.runs) : [];
  steps = [...new Set(runs.flatMap((run) => run.steps))].sort((a, b) => a - b);
  show();
};
slider.addEventListener("input", () => {
  const at = Number(slider.value);
  wanted = at === steps.length - 1 ? null : steps[at];
  show();
});
new MutationObserver(read).observe(list, { childList: true, subtree: true, attributes: true });
read();
