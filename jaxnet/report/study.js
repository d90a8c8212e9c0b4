// A click on a heading sorts its table by that column, a second click the other way round; dashes stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const read = (text) => (/^[-+.\d]/.test(text) ? parseFloat(text.replace(/[,\s]/g, "")) : NaN);
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const rows = [...table.tBodies[0].rows].map((row) => [row.cells[column].textContent.trim(), row]);
    const texts = rows.map(([text]) => text).filter((text) => text !== "–");
    const numeric = texts.every((text) => !Number.isNaN(read(text)));
    const compare = (a, b) => (numeric ? read(a) - read(b) : a.localeCompare(b, "en"));
    rows.sort(([a], [b]) => {
      if (a === "–" || b === "–") return (a === "–") - (b === "–");
      return order === "ascending" ? compare(a, b) : compare(b, a);
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}
