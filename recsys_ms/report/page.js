"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const root = document.documentElement;
  const chosen = {};
  const views = new Map();

  function colour(name) {
    return getComputedStyle(root).getPropertyValue(name).trim();
  }

  function config() {
    const text = colour("--text");
    const soft = colour("--soft");
    const line = colour("--line");
    const main = colour("--c1");
    return {
      background: "transparent",
      font: "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
      view: { stroke: line },
      axis: {
        labelColor: soft, titleColor: soft, tickColor: line, domainColor: line, gridColor: line,
        gridOpacity: 0.5, labelFontSize: 11, titleFontSize: 12, titleFontWeight: "normal",
        labelLimit: window.innerWidth < 600 ? 110 : 220,
      },
      legend: { labelColor: text, titleColor: soft, titleFontWeight: "normal", labelFontSize: 12,
        orient: "top", columns: window.innerWidth < 600 ? 2 : 0, symbolOpacity: 1 },
      range: { category: ["--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7"].map(colour) },
      mark: { color: main, tooltip: null },
      bar: { color: main },
      area: { color: main },
      line: { color: main },
      point: { color: main },
      text: { color: text },
      style: { reference: { stroke: colour("--reference"), color: colour("--reference") } },
    };
  }

  async function draw() {
    const theme = config();
    for (const [key, spec] of Object.entries(specs)) {
      const element = document.getElementById(key + "-chart");
      const description = element.getAttribute("aria-label");
      const made = await vegaEmbed(element, { ...spec, width: "container" }, {
        mode: "vega-lite", renderer: "svg", actions: false, ast: true, config: theme,
        defaultStyle: false, tooltip: { disableDefaultStyle: true },
      });
      views.set(key, made.view);
      made.view.description(description);
      for (const [signal, value] of Object.entries(chosen)) set(made.view, key, signal, value);
      await made.view.runAsync();
      element.style.background = colour("--panel");
      element.dataset.drawn = "yes";
    }
    root.dataset.drawn = "yes";
  }

  function follows(key, signal) {
    return (specs[key].params || []).some((param) => param.name === signal);
  }

  // A metric is chosen for its own section, a task for all of them.
  function set(view, key, name, value) {
    const [section, signal] = name.includes("/") ? name.split("/") : ["", name];
    if ((section && section !== key) || !follows(key, signal)) return;
    view.signal(signal, value);
    const { height, usermeta } = specs[key];
    if (usermeta && signal === "task") view.height(value === "" ? height : 2 * usermeta.step);
  }

  async function choose(select) {
    const signal = select.dataset.signal;
    const section = select.closest("section").id;
    const name = signal === "task" ? signal : section + "/" + signal;
    chosen[name] = select.value;
    for (const [key, view] of views) {
      set(view, key, name, select.value);
      await view.runAsync();
    }
    let said = select.selectedOptions[0].textContent + " is shown.";
    if (signal === "task") {
      let n = 0;
      for (const row of document.querySelectorAll("tr[data-task]")) {
        row.hidden = select.value !== "" && row.dataset.task !== select.value;
        n += row.hidden ? 0 : 1;
      }
      said = "Showing " + select.selectedOptions[0].textContent + ": " + n + " table rows.";
      for (const other of document.querySelectorAll('select[data-signal="task"]')) {
        other.value = select.value;
      }
    }
    document.getElementById("said").textContent = said;
  }

  function remembered(value) {
    // A file from a mail attachment may have no storage.
    try {
      if (value === undefined) return localStorage.getItem("recsys-ms-theme") || "";
      localStorage.setItem("recsys-ms-theme", value);
    } catch (error) {
      return "";
    }
    return value;
  }

  let drawing = Promise.resolve();
  function redraw() {
    drawing = drawing.then(draw);
    return drawing;
  }

  const theme = document.getElementById("theme");
  function apply() {
    if (theme.value) root.dataset.theme = theme.value;
    else delete root.dataset.theme;
  }
  theme.value = remembered();
  apply();
  theme.addEventListener("change", () => {
    remembered(theme.value);
    apply();
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  for (const select of document.querySelectorAll("select[data-signal]")) {
    select.addEventListener("change", () => choose(select));
  }
  redraw();
})();
