"use strict";
// Draws each figure when it comes near the screen, and lets its controls choose among its traces.
(() => {
  const chosen = {};
  const drawn = {};
  const controls = [...document.querySelectorAll(".control")];

  const isShown = (trace, choice) => {
    const when = (trace.meta && trace.meta.when) || {};
    return Object.entries(when).every(([name, options]) =>
      !(name in choice) || options.includes(choice[name]));
  };

  const draw = (plot) => {
    if (drawn[plot.id]) return drawn[plot.id];
    const text = document.querySelector(`script[data-for="${CSS.escape(plot.id)}"]`).textContent;
    const { data, layout } = JSON.parse(text);
    const choice = chosen[plot.id] || {};
    data.forEach((trace) => { trace.visible = isShown(trace, choice); });
    drawn[plot.id] = Plotly.newPlot(plot, data, layout, { responsive: true, displaylogo: false,
      displayModeBar: false });
    return drawn[plot.id];
  };

  const choose = async (control, value) => {
    const { of, name } = control.dataset;
    chosen[of][name] = value;
    control.querySelectorAll("button").forEach((button) =>
      button.setAttribute("aria-pressed", String(Number(button.value) === value)));
    const plot = document.getElementById(of);
    await draw(plot);
    Plotly.restyle(plot, { visible: plot.data.map((trace) => isShown(trace, chosen[of])) });
  };

  controls.forEach((control) => {
    const list = control.querySelector("select");
    const pressed = control.querySelector('button[aria-pressed="true"]');
    chosen[control.dataset.of] ||= {};
    chosen[control.dataset.of][control.dataset.name] = Number((list || pressed).value);
    if (list) list.addEventListener("change", () => choose(control, Number(list.value)));
    control.querySelectorAll("button").forEach((button) =>
      button.addEventListener("click", () => choose(control, Number(button.value))));
  });

  const plots = [...document.querySelectorAll(".plot")];
  const watch = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    watch.unobserve(entry.target);
    draw(entry.target);
  }), { rootMargin: "600px" });
  plots.forEach((plot) => watch.observe(plot));
  window.addEventListener("beforeprint", () => plots.forEach(draw));
})();
