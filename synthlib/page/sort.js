// Tables can be sorted by any column where scripts run; without them they are as they are.
for (const table of document.querySelectorAll("table.number-table")) {
  const rows = () => [...table.tBodies[0].rows];
  const key = (row, column) => {
    const cell = row.cells[column], number = Number(cell.dataset.order);
    return cell.dataset.order !== "" && !Number.isNaN(number) ? number : cell.dataset.order;
  };
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sign = down ? -1 : 1;
      const compare = (a, b) => {
        const [x, y] = [key(a, column), key(b, column)];
        if (x === "" || y === "") return (x === "") - (y === ""); // empty ones last, either way
        if (typeof x === "number" && typeof y === "number") return sign * (x - y);
        return sign * String(x).localeCompare(String(y), "en", { numeric: true });
      };
      table.tBodies[0].append(...rows().sort(compare));
    });
  });
}
