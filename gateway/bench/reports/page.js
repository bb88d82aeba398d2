"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const settings = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  };

  // Names that begin with "@" stand for the custom property of the same name.
  const themed = (value, style) => {
    if (typeof value === "string") {
      return value.startsWith("@") ? style.getPropertyValue("--" + value.slice(1).replaceAll("_", "-")).trim() : value;
    }
    if (Array.isArray(value)) {
      return typeof value[0] === "number" ? value.slice() : value.map((item) => themed(item, style));
    }
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, themed(item, style)]));
    }
    return value;
  };

  const span = (change) => {
    if (change["xaxis.range"]) return change["xaxis.range"];
    if ("xaxis.range[0]" in change) return [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    return null;
  };

  let following = false;
  let shown = null;

  const follow = (source, change) => {
    const range = change["xaxis.autorange"] ? figures[0].layout.xaxis.range : span(change);
    if (following || !range) return;
    following = true;
    shown = range.slice();
    const others = figures.filter((figure) => figure.key !== source || change["xaxis.autorange"]);
    Promise.all(others.map((figure) => Plotly.relayout(figure.key, { "xaxis.range": range.slice() }))).finally(() => {
      following = false;
    });
  };

  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    for (const figure of figures) {
      const layout = themed(figure.layout, style);
      if (shown) layout.xaxis.range = shown.slice();
      const bar = layout.barmode ? false : "hover";
      Plotly.react(figure.key, themed(figure.data, style), layout, { ...settings, displayModeBar: bar });
    }
  };

  draw();
  for (const figure of figures) {
    document.getElementById(figure.key).on("plotly_relayout", (change) => follow(figure.key, change));
  }
  dark.addEventListener("change", draw);
})();
