// Parallel coordinates: pointing at a line or at a trial's row shows that trial; dragging along an axis keeps the lines
// that pass there, a click on the axis lets all come back.
for (const chart of document.querySelectorAll("svg.parallel")) {
  const lines = [...chart.querySelectorAll("path.line")];
  const reading = document.getElementById("reading");
  const usual = reading.textContent;
  const chosen = new Map();
  let shown = null;

  const show = (line) => {
    if (shown) shown.classList.remove("on");
    shown = line;
    if (line) {
      line.classList.add("on");
      line.parentNode.append(line);
    }
    reading.textContent = line ? line.dataset.text : usual;
  };
  const filter = () => {
    for (const line of lines) {
      const heights = line.dataset.heights.split(" ").map(Number);
      const inside = [...chosen].every(([axis, [low, high]]) => axis < heights.length && low <= heights[axis] && heights[axis] <= high);
      line.classList.toggle("out", !inside);
    }
  };
  const height = (event) => {
    const box = chart.getBoundingClientRect();
    return (event.clientY - box.top) * chart.viewBox.baseVal.height / box.height;
  };

  chart.addEventListener("pointerover", (event) => {
    const name = event.target.dataset.trial;
    if (name) show(lines.find((line) => line.dataset.trial === name));
  });
  chart.addEventListener("pointerleave", () => show(null));
  for (const brush of chart.querySelectorAll("rect.brush")) {
    const axis = Number(brush.dataset.axis);
    const mark = brush.nextElementSibling;
    let start = null;
    brush.addEventListener("pointerdown", (event) => {
      start = height(event);
      brush.setPointerCapture(event.pointerId);
    });
    brush.addEventListener("pointermove", (event) => {
      if (start === null) return;
      const now = height(event);
      const range = [Math.min(start, now), Math.max(start, now)];
      mark.setAttribute("y", range[0]);
      mark.setAttribute("height", range[1] - range[0]);
      chosen.set(axis, range);
      filter();
    });
    brush.addEventListener("pointerup", (event) => {
      if (start !== null && Math.abs(height(event) - start) < 4) {
        mark.setAttribute("height", 0);
        chosen.delete(axis);
        filter();
      }
      start = null;
    });
  }
  for (const row of document.querySelectorAll("table.trials tbody tr")) {
    const line = lines.find((one) => one.dataset.trial === row.dataset.settings);
    if (!line) continue;
    row.addEventListener("pointerenter", () => show(line));
    row.addEventListener("pointerleave", () => show(null));
  }
}
