// Draws the figures, sorts the tables, enlarges the photos, and fits the figures to paper.
"use strict";
(() => {
  const PAPER_PX = 1010; // A4 across, less its margins
  const PAPER_SHARE = 0.8; // of a figure's height

  const figures = JSON.parse(document.getElementById("figures").textContent);
  // Named one by one: among plotly's own is a button that sends a figure's data to its makers.
  const tools = [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]];
  const draw = ([name, figure]) => Plotly.newPlot(name, figure.data, figure.layout, {
    displayModeBar: figure.has_tools ? "hover" : false, displaylogo: false, modeBarButtons: tools, responsive: true,
  });
  const drawn = Object.entries(figures).map(draw);
  Promise.all(drawn).then(() => { document.documentElement.dataset.drawn = String(drawn.length); });

  const resize = (name, width, height) => {
    document.getElementById(name).style.height = `${height}px`;
    Plotly.relayout(name, { autosize: width === null, width, height });
  };
  const each = (fit) => Object.entries(figures).forEach(([name, figure]) => fit(name, figure));
  addEventListener("beforeprint", () => each((name, { layout, widest }) => {
    resize(name, Math.min(widest ?? PAPER_PX, PAPER_PX), Math.round(layout.height * PAPER_SHARE));
  }));
  addEventListener("afterprint", () => each((name, { layout }) => resize(name, null, layout.height)));

  // Empty cells stay last whichever way; groups of rows stay apart.
  const sort = (head) => {
    const table = head.closest("table");
    const values = [...table.tBodies].flatMap((body) => [...body.rows].map((row) => row.cells[head.cellIndex].dataset.value));
    const isNumber = values.every((value) => value === "" || Number.isFinite(Number(value)));
    const first = isNumber ? "descending" : "ascending";
    const order = head.ariaSort !== first ? first : first === "ascending" ? "descending" : "ascending";
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => row.cells[head.cellIndex].dataset.value;
    const compare = (a, b) => (isNumber ? a - b : a.localeCompare(b, "en", { numeric: true }));
    for (const body of table.tBodies) {
      const rows = [...body.rows].sort((a, b) => {
        const [one, other] = [key(a), key(b)];
        if (one === "" || other === "") return (one === "") - (other === "");
        return sign * compare(one, other);
      });
      body.append(...rows);
    }
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
  };
  for (const button of document.querySelectorAll("table.sortable th button")) {
    button.addEventListener("click", () => sort(button.closest("th")));
  }

  const dialog = document.getElementById("enlarged");
  dialog.addEventListener("click", () => dialog.close());
  for (const picture of document.querySelectorAll(".photos img")) {
    picture.addEventListener("click", () => {
      const large = new Image();
      large.src = picture.src;
      large.alt = picture.alt;
      dialog.replaceChildren(large);
      dialog.showModal();
    });
  }
})();
