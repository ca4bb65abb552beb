// Tables: headers that sort, a field that filters. The rows stand in the page; nothing is fetched.
"use strict";
document.documentElement.classList.add("js");

const collator = new Intl.Collator("en", { numeric: true });

/** What a cell is sorted by: its number, its text, or null where nothing was measured. */
function sortKey(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.value === undefined) return cell.textContent.trim() || null;
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

/** Compare two keys; what is missing comes last in both directions. */
function compare(first, second, sign) {
  if (first === null || second === null) return (first === null) - (second === null);
  if (typeof first === "number" && typeof second === "number") return sign * (first - second);
  return sign * collator.compare(String(first), String(second));
}

/** Three states by turns: the direction that helps most, the other one, the order of the grid. */
function makeSortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  if (original.length < 2) return;
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    const order = header.classList.contains("number")
      ? ["descending", "ascending", "none"]
      : ["ascending", "descending", "none"];
    button.addEventListener("click", () => {
      const next = order[(order.indexOf(header.getAttribute("aria-sort")) + 1) % 3];
      for (const other of headers) other.setAttribute("aria-sort", "none");
      header.setAttribute("aria-sort", next);
      const rows = [...original];
      const sign = next === "ascending" ? 1 : -1;
      if (next !== "none") {
        rows.sort((a, b) => compare(sortKey(a, column), sortKey(b, column), sign));
      }
      body.append(...rows);
    });
  });
}

/** Hide the rows that lack one of the words; say how many are left. */
function makeFilter(box) {
  const field = box.querySelector("input[type=search]");
  if (field === null) return;
  const rows = [...box.querySelectorAll("tbody tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const told = box.querySelector("output");
  const apply = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => texts[i].includes(word));
    });
    const left = rows.filter((row) => !row.hidden).length;
    told.textContent = words.length ? `${left} of ${rows.length} rows` : "";
  };
  field.addEventListener("input", apply);
}

for (const box of document.querySelectorAll(".table")) {
  makeSortable(box.querySelector("table"));
  makeFilter(box);
}
