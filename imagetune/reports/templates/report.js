// Sorting by a column's button; rows without a value stay at the end.
for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const table = heading.closest("table");
    const column = [...heading.parentNode.children].indexOf(heading);
    const upward = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", upward ? "ascending" : "descending");
    const key = (row) => row.children[column].dataset.value;
    const body = table.tBodies[0];
    const rows = [...body.rows].sort((one, two) => {
      const a = key(one), b = key(two);
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
      return upward ? order : -order;
    });
    body.append(...rows);
  });
}
// A heading that is cut off at a table's edge is moved into sight when the keyboard reaches it.
for (const box of document.querySelectorAll(".scroll")) {
  box.addEventListener("focusin", (event) => {
    if (event.target !== box) event.target.scrollIntoView({block: "nearest", inline: "nearest"});
  });
}
// A closed section opens when a link leads to it, and every one does on paper.
function openSection(address) {
  const section = document.getElementById(address.slice(1));
  for (const folded of section ? section.querySelectorAll(":scope > details") : []) folded.open = true;
}
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (link) openSection(link.getAttribute("href"));
});
openSection(location.hash);
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
