// A click on a column's head sorts the table by it; another click turns the order round.
function key(row, column) {
  const cell = row.cells[column];
  return "value" in cell.dataset ? (cell.dataset.value === "" ? NaN : +cell.dataset.value) : cell.textContent;
}

function compare(a, b) {
  return typeof a === "string" ? a.localeCompare(b) : a - b;
}

for (const head of document.querySelectorAll("thead th")) {
  head.firstElementChild.addEventListener("click", () => {
    const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
    const first = head.classList.contains("text") ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const th of table.tHead.rows[0].cells) th.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    const missing = ([value]) => Number.isNaN(value);
    const known = rows.filter((row) => !missing(row)).sort(([a], [b]) => sign * compare(a, b));
    body.append(...[...known, ...rows.filter(missing)].map(([, row]) => row));  // gaps stay last
  });
}

// A click on Copy puts the table, as it is shown and sorted, on the clipboard: tab-separated, as spreadsheets take it.
function asText(table) {
  return [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()).join("\t")).join("\n");
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");  // of a page that is not served securely
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    await copy(asText(button.closest("details").querySelector("table")));
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
