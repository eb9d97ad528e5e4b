// The chat as a page of the service. The key comes behind the # of the address, which no server is sent, and stays in this tab.
import { httpLink, mountChat } from "./face.js";

const KEY = "orbiquant-key";
const CONVERSATION = "orbiquant-conversation";

for (const [name, kept] of [
  ["token", KEY],
  ["conversation", CONVERSATION],
]) {
  const told = new URLSearchParams(location.hash.slice(1)).get(name);
  if (told) sessionStorage.setItem(kept, told);
}
history.replaceState(null, "", location.pathname); // no key in the history, nor in what is copied
addEventListener("hashchange", () => location.reload());

const link = httpLink({
  base: new URL(".", location.href).href,
  conversation: sessionStorage.getItem(CONVERSATION) ?? "web",
  headers: () => {
    const key = sessionStorage.getItem(KEY);
    return key ? { Authorization: `Bearer ${key}` } : {};
  },
});
link.listen(() => sessionStorage.setItem(CONVERSATION, link.conversation));
mountChat(document.getElementById("chat"), link);
