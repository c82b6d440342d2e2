// The rows that are shown, in their order, as a file: CSV for a sheet, JSON for a program.
function asCsv(rows) {
  const keys = Object.keys(DATA.rows[0]);
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [keys, ...rows.map((row) => keys.map((key) => row[key]))].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

function save(name, type, text) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const downloads = (rows) =>
  h(
    "span",
    { class: "downloads" },
    "Download ",
    h(
      "button",
      { type: "button", class: "quiet", "data-save": "csv", onclick: () => save("perjoule.csv", "text/csv", asCsv(sortedRows(rows()))) },
      "CSV",
    ),
    h(
      "button",
      {
        type: "button",
        class: "quiet",
        "data-save": "json",
        onclick: () => save("perjoule.json", "application/json", JSON.stringify(sortedRows(rows()), null, 1)),
      },
      "JSON",
    ),
  );
