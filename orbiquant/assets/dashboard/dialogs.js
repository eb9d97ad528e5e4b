// Questions that stand before an act: what will happen, why, and a way out (Esc).
import { element, pushButton } from "./dom.js";

let number = 0;

// A field with its label: kind is a name of an input, or "area".
export function field(label, name, { kind = "text", ...options } = {}) {
  const made = element(kind === "area" ? "textarea" : "input");
  if (kind !== "area") made.type = kind;
  Object.assign(made, { name, id: `field-${(number += 1)}`, ...options });
  const said = element("label", "", label);
  said.htmlFor = made.id;
  return element("div", kind === "checkbox" ? "field check" : "field", ...(kind === "checkbox" ? [made, said] : [said, made]));
}

// One of several: [value, label] pairs.
export function choice(legend, name, options, chosen) {
  const made = element("fieldset", "choice", element("legend", "", legend));
  for (const [value, label] of options) {
    const button = element("input");
    Object.assign(button, { type: "radio", name, value, id: `field-${(number += 1)}`, checked: value === chosen, required: true });
    const said = element("label", "", label);
    said.htmlFor = button.id;
    made.append(element("div", "field check", button, said));
  }
  return made;
}

// Ask before an act. `act` gets what was entered; where it is refused the question stays, with the reason.
export function ask({ title, text, fields = [], confirm, danger = false, act }) {
  const dialog = element("dialog", "asking");
  const name = element("h2", "", title);
  name.id = `asking-${(number += 1)}`;
  dialog.setAttribute("aria-labelledby", name.id);
  const told = element("p", "trouble");
  told.setAttribute("role", "alert");
  const go = element("button", danger ? "danger" : "main", confirm);
  go.type = "submit";
  const form = element(
    "form",
    "",
    name,
    ...[text].flat().map((each) => element("p", "", each)),
    ...fields,
    told,
    element("div", "acts", pushButton("", "Cancel", () => dialog.close()), go),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    told.textContent = "";
    try {
      await act(Object.fromEntries(new FormData(form)));
      dialog.close();
    } catch (refusal) {
      told.textContent = refusal.message;
      go.disabled = false;
    }
  });
  dialog.append(form);
  const back = document.activeElement;
  const key = back?.dataset?.key;
  dialog.addEventListener("close", () => {
    dialog.remove();
    // What was pressed may have been drawn anew meanwhile.
    if (back && !back.isConnected && key) [...document.querySelectorAll("[data-key]")].find((each) => each.dataset.key === key)?.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  (form.querySelector("input:not([type=radio]), textarea") ?? go).focus();
  return dialog;
}
