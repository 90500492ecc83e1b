"use strict";
// Niceties only: sorting, choosing classes, copying. The page is whole without them.

for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("num");
      const before = head.getAttribute("aria-sort");
      const order = before ? (before === "ascending" ? "descending" : "ascending") : numeric ? "descending" : "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      sortRows(table.tBodies[0], column, order === "ascending" ? 1 : -1);
    });
  });
}

function sortRows(body, column, sign) {
  const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
  const missing = (value) => value === "" || value === "–";
  const compare = (a, b) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    const numbers = [Number(a), Number(b)];
    return sign * (numbers.some(Number.isNaN) ? a.localeCompare(b) : numbers[0] - numbers[1]);
  };
  const rows = [...body.rows].map((row) => [key(row), row]);
  body.append(...rows.sort((a, b) => compare(a[0], b[0])).map(([, row]) => row));
}

for (const filter of document.querySelectorAll("[data-filter]")) {
  filter.hidden = false;
  const table = filter.parentElement.querySelector("table");
  const heads = [...table.tHead.rows[0].cells];
  const boxes = [...filter.querySelectorAll("input")];
  const show = () => {
    const chosen = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const hidden = (k) => k !== undefined && !chosen.has(k);
    for (const head of heads) head.hidden = hidden(head.dataset.k);
    for (const row of table.tBodies[0].rows) {
      row.hidden = hidden(row.dataset.k);
      [...row.cells].forEach((cell, i) => (cell.hidden = heads[i].hidden));
    }
  };
  const mistakes = new Map(heads.map((head) => [head.dataset.k, Number(head.dataset.mistakes)]));
  const wanted = { all: () => true, none: () => false, mistakes: (box) => mistakes.get(box.value) > 0 };
  filter.addEventListener("change", show);
  filter.addEventListener("click", (event) => {
    const choose = event.target.dataset.choose;
    if (!choose) return;
    for (const box of boxes) box.checked = wanted[choose](box);
    show();
  });
  show();
}

for (const box of document.querySelectorAll("figure.code")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    const source = box.querySelector("code");
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  box.append(button);
}
