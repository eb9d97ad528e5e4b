// The copilot's chat: it draws the events of a turn, wherever they come from.
// A link is where they come from: listen(callback), send({kind, …}). Kinds a page sends: hello, say, decide, stop.
// Kinds it is sent: reset {state, messages, tickets, events}, events {first, events}, state {state}, error {text}.

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function mountChat(root, link) {
  const log = element("div", "oq-log");
  const composer = element("textarea", "oq-composer");
  const send = element("button", "oq-send", "Send");
  const stop = element("button", "oq-stop", "Stop");
  log.setAttribute("role", "log");
  let answer = null;
  const tickets = new Map();

  function say(text, className) {
    const line = element("div", className, text);
    log.append(line);
    return line;
  }

  function drawTicket(ticket) {
    const card = tickets.get(ticket.id) ?? element("div", "oq-ticket");
    const { symbol, action, size } = ticket.known;
    card.replaceChildren(element("span", "", `${action} ${size} ${symbol}: ${ticket.state}`));
    if (ticket.state === "pending") {
      const decide = (approved) => {
        const override = approved && Boolean(ticket.known.needs_override);
        link.send({ kind: "decide", decisions: { [ticket.id]: { approved, override } } });
      };
      const approve = element("button", "oq-approve", "Approve");
      const deny = element("button", "oq-deny", "Deny");
      approve.onclick = () => decide(true);
      deny.onclick = () => decide(false);
      card.append(approve, deny);
    }
    tickets.set(ticket.id, card);
    log.append(card);
  }

  function draw(event) {
    if (event.type === "start") answer = null;
    else if (event.type === "text-delta") {
      answer ??= say("", "oq-answer");
      answer.textContent += event.delta;
    } else if (event.type === "tool-input-available") say(event.toolName, "oq-tool");
    else if (event.type === "data-ticket") drawTicket(event.data);
    else if (event.type === "error") say(event.errorText, "oq-error");
    else if (event.type === "data-said") say(event.data.text, "oq-question");
  }

  const leave = link.listen((told) => {
    if (told.kind === "reset") {
      log.replaceChildren();
      tickets.clear();
      for (const message of told.messages) {
        for (const part of message.parts) {
          if (part.type === "text") say(part.text, message.role === "user" ? "oq-question" : "oq-answer");
        }
      }
      told.tickets.forEach(drawTicket);
      told.events.forEach(draw);
    } else if (told.kind === "events") told.events.forEach(draw);
    else if (told.kind === "error") say(told.text, "oq-error");
  });
  function submit() {
    const text = composer.value.trim();
    if (text) link.send({ kind: "say", text });
    composer.value = "";
  }
  composer.onkeydown = (event) => {
    event.stopPropagation();
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    }
  };
  send.onclick = submit;
  stop.onclick = () => link.send({ kind: "stop" });
  root.append(log, composer, send, stop);
  link.send({ kind: "hello" });
  return leave;
}

function kernelLink(model) {
  return {
    listen(callback) {
      model.on("msg:custom", callback);
      return () => model.off("msg:custom", callback);
    },
    send: (told) => model.send(told),
  };
}

export default {
  render({ model, el }) {
    return mountChat(el, kernelLink(model));
  },
};
