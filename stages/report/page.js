// Tables sort by a click on a column's head; points of a picture show their label on hover.
const value = (cell) => {
  const text = cell.textContent.trim();
  const match = text.replaceAll(",", "").match(/^[+-]?\d+(\.\d+)?(e[+-]?\d+)?/i);
  return { text, number: match ? Number(match[0]) : NaN };
};

const compare = (one, other) => {
  if (!Number.isNaN(one.number) && !Number.isNaN(other.number)) return one.number - other.number;
  return one.text.localeCompare(other.text, "en");
};

const sort = (head, column) => {
  const table = head.closest("table");
  const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction);
  const rows = [...table.tBodies[0].rows];
  // A group is named in its first row alone: every row needs its name before they part.
  let group = "";
  for (const row of rows) {
    const first = row.cells[0];
    if (first.textContent.trim()) group = first.innerHTML;
    else if (row.parentElement.querySelector("td:first-child strong")) first.innerHTML = group;
  }
  const filled = (row) => !["", "–"].includes(row.cells[column].textContent.trim());
  rows.sort((one, other) => {
    if (filled(one) !== filled(other)) return filled(one) ? -1 : 1;
    const order = compare(value(one.cells[column]), value(other.cells[column]));
    return direction === "ascending" ? order : -order;
  });
  table.tBodies[0].append(...rows);
};

for (const head of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.innerHTML = head.innerHTML || "&nbsp;";
  head.replaceChildren(button);
  button.addEventListener("click", () => sort(head, head.cellIndex));
}

for (const point of document.querySelectorAll("svg [role=graphics-symbol][aria-label]")) {
  if (point.getAttribute("aria-roledescription") !== "point") continue;
  const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
  title.textContent = point.getAttribute("aria-label");
  point.append(title);
}
