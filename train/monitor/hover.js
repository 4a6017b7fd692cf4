// Values under the pointer (or a finger, or the arrow keys) of every .m-plot; once for the whole page.
if (!window.kaskadeHover) {
  window.kaskadeHover = true;
  const tip = document.createElement("div");
  tip.className = "m-tip";
  tip.setAttribute("role", "status");
  document.querySelector(".gradio-container").appendChild(tip);
  let rule = null;

  const short = (v) => {
    if (v === null || v === undefined) return "–";
    const size = Math.abs(v);
    const text = size && size < 1e-3 ? v.toExponential(2) : size >= 1000
      ? Math.round(v).toLocaleString("en") : String(Number(v.toPrecision(4)));
    return text.replace("-", "−");
  };
  const nearest = (values, x) => {
    let low = 0, high = values.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (values[middle] < x) low = middle; else high = middle;
    }
    return Math.abs(values[high] - x) < Math.abs(values[low] - x) ? high : low;
  };
  const row = (parent, colour, words, value) => {
    const line = parent.appendChild(document.createElement("div"));
    if (colour) {
      const key = line.appendChild(document.createElement("i"));
      key.style.background = colour;
    }
    line.appendChild(document.createElement("span")).textContent = words;
    line.appendChild(document.createElement("b")).textContent = value;
  };

  const hide = () => { tip.style.display = "none"; if (rule) rule.remove(); rule = null; };

  const show = (plot, share, up) => {
    const data = JSON.parse(plot.dataset.values);
    const box = plot.getBoundingClientRect();
    let x = data.x[0] + share * (data.x[1] - data.x[0]);
    tip.replaceChildren();
    if (data.heat) {
      const level = Math.min(data.heat.length - 1, Math.max(0, Math.floor(up * data.heat.length)));
      let cell = data.edges.findIndex((edge, i) => i > 0 && x <= edge) - 1;
      if (cell < 0) cell = data.heat[0].length - 1;
      row(tip, null, data.name, short(data.edges[cell + 1]));
      data.names.forEach((name, i) => {
        row(tip, null, name, short(data.heat[i][cell]));
        if (i === level) tip.lastChild.className = "m-here";
      });
    } else {
      const all = data.lines.filter((line) => line.x.length);
      if (!all.length) return hide();
      const first = all[0].x[nearest(all[0].x, x)];
      x = first;
      row(tip, null, data.name, short(x));
      for (const line of all) {
        const at = nearest(line.x, x);
        row(tip, line.colour, line.name, short(line.y[at]));
        if (short(line.raw[at]) !== short(line.y[at])) row(tip, null, "not smoothed", short(line.raw[at]));
      }
      share = data.x[1] > data.x[0] ? (x - data.x[0]) / (data.x[1] - data.x[0]) : 0;
    }
    if (!rule || rule.parentNode !== plot) {
      if (rule) rule.remove();
      rule = document.createElement("i");
      rule.className = "m-rule";
      plot.appendChild(rule);
    }
    rule.style.left = `${100 * share}%`;
    plot.dataset.share = share;
    tip.style.display = "block";
    const place = box.left + share * box.width;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    const left = place + width + 16 < window.innerWidth ? place + 12 : Math.max(4, place - width - 12);
    tip.style.left = `${left}px`;
    tip.style.top = `${Math.min(window.innerHeight - height - 4, Math.max(4, box.top + 8))}px`;
  };

  const over = (event) => {
    const plot = event.target.closest ? event.target.closest(".m-plot") : null;
    if (!plot) return hide();
    const box = plot.getBoundingClientRect();
    const within = (value) => Math.min(1, Math.max(0, value));
    show(plot, within((event.clientX - box.left) / box.width), within((event.clientY - box.top) / box.height));
  };
  document.addEventListener("pointermove", over);
  document.addEventListener("pointerdown", over);
  document.addEventListener("scroll", hide, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => {
    const plot = document.activeElement;
    if (!plot || !plot.classList.contains("m-plot")) return;
    const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
    if (event.key === "Escape") return hide();
    if (step === undefined) return;
    event.preventDefault();
    const before = plot.dataset.share === undefined ? (step > 0 ? 0 : 1) : Number(plot.dataset.share);
    show(plot, Math.min(1, Math.max(0, before + step)), 0);
  });
}
