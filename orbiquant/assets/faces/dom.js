// Elements are made by name and filled with text: nothing that was said is ever read as markup.
export function element(tag, className = "", ...inside) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const each of inside) {
    if (each !== null && each !== undefined && each !== "") made.append(each);
  }
  return made;
}

export function pushButton(className, text, pressed) {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", pressed);
  return made;
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // A page without https has no clipboard: the old way still works there.
    const held = element("textarea", "oq-hidden");
    held.value = text;
    document.body.append(held);
    held.select();
    document.execCommand("copy");
    held.remove();
  }
}

export function copyButton(say, label, textOf) {
  const made = pushButton("oq-copy", say("copy"), async () => {
    const focused = document.activeElement;
    await copyText(textOf());
    focused?.focus?.({ preventScroll: true });
    made.textContent = say("copied");
    setTimeout(() => (made.textContent = say("copy")), 1500);
  });
  made.setAttribute("aria-label", label);
  return made;
}

// Numbers as people of a language write them.
export function writeNumber(value, language, least = 0, most = 2) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  return value.toLocaleString(language, { minimumFractionDigits: least, maximumFractionDigits: most });
}

// How many decimals prices need so that all of them stand under one another.
export function decimalsOf(...prices) {
  const exact = (price) => {
    for (let places = 0; places < 12; places += 1)
      if (Math.abs(Number(price.toFixed(places)) - price) <= Math.abs(price) * 1e-9) return places;
    return 12;
  };
  return Math.max(0, ...prices.filter((each) => typeof each === "number" && Number.isFinite(each)).map(exact));
}

export function writePrice(value, language, decimals = decimalsOf(value)) {
  return writeNumber(value, language, decimals, decimals);
}

// A size that is traded: every digit of it.
export function writeSize(value, language) {
  return writeNumber(value, language, 0, 8);
}

export function writeTime(text) {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? String(text ?? "–") : `${at.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

export function writeAge(seconds, say) {
  if (typeof seconds !== "number") return "–";
  if (seconds >= 172_800) return say("days", { count: Math.round(seconds / 86_400).toLocaleString(say.language) });
  if (seconds >= 7_200) return say("hours", { count: Math.round(seconds / 3_600) });
  return say("minutes", { count: Math.round(seconds / 60) });
}

// A list of facts: [name, value, className?]; a value is text or an element.
export function factList(facts, className = "oq-facts") {
  const list = element("dl", className);
  for (const [name, value, tone = ""] of facts) {
    if (value === null || value === undefined || value === "") continue;
    const wide = className === "oq-facts" && String(value.textContent ?? value).length > 17;
    list.append(
      element("div", wide ? "oq-fact oq-wide" : "oq-fact", element("dt", "", name), element("dd", tone, value)),
    );
  }
  return list;
}

// A table of text: heads and rows; numbers stand to the right.
export function textTable(heads, rows, label) {
  const body = element("tbody");
  const head = element("tr");
  const isNumber = heads.map(
    (_, place) => rows.length > 0 && rows.every((row) => /^[+\-−]?[\d.,]+( ?%)?$|^–$/.test(row[place] ?? "–")),
  );
  heads.forEach((each, place) => {
    const cell = element("th", isNumber[place] ? "oq-number" : "", each);
    cell.scope = "col";
    head.append(cell);
  });
  for (const row of rows)
    body.append(
      element("tr", "", ...row.map((each, place) => element("td", isNumber[place] ? "oq-number" : "", each ?? "–"))),
    );
  return scrolling(element("table", "", element("thead", "", head), body), label);
}

export function scrolling(inside, label) {
  const made = element("div", "oq-scroll", inside);
  made.tabIndex = 0;
  made.setAttribute("role", "region");
  made.setAttribute("aria-label", label);
  return made;
}
