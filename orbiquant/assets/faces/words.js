// What the page says of its own accord, in English and Spanish; answers come in whatever language they were given.
const WORDS = {
  en: {
    title: "OrbiQuant copilot", log: "Conversation", ask: "Ask about a market…", message: "Message",
    send: "Send", stop: "Stop", stopping: "Stopping…", fresh: "New chat", latest: "Jump to latest ↓",
    you: "You", answer: "Answer", copy: "Copy", copied: "Copied", copyAnswer: "Copy answer", copyCode: "Copy code",
    table: "Table, scrolls sideways", code: "Code", thinking: "Thinking", waiting: "Working…",
    empty: "Ask for a price, a signal, a chart of one of your tables, or for an order. Nothing is traded until you approve it.",
    examples: ["What is the price of EURUSD?", "Give me a signal for EURUSD", "What is a fair value gap?"],
    hint: "Enter sends, Shift+Enter starts a line", hintBusy: "Esc twice stops", sending: "Sending…",
    slow: "The kernel has not answered yet: it may be busy with a cell.",
    tooLong: "{count} of {most} characters: too long to send", pasted: "That text has {count} characters, {most} fit: it was not pasted.",
    busyHint: "An answer is on its way: wait for it, or stop it.",
    stopped: "Stopped", failed: "The answer broke off", retry: "Put the question back",
    connecting: "Connecting…", live: "Connected", working: "Answering", gone: "Not connected",
    goneLong: "The kernel does not answer: it is gone, or busy with a cell. What you see is saved.",
    lostLong: "The connection was lost. Trying again…", again: "Try again",
    plan: "plan", context: "Context", contextLong: "Context in use: {used} of {room} tokens",
    frames: "Tables it may read", tokens: "tokens",
    arguments: "Arguments", result: "Result", cut: "… {count} more characters", running: "running", done: "done",
    toolFailed: "failed", refused: "refused", needsApproval: "needs approval", denied: "denied", unknownTool: "Tool",
    needsPlan: "needs another plan", notDrawn: "Not drawn here: {kinds}.", noPoints: "There is nothing to draw.", undrawn: "A part of this answer cannot be drawn here.",
    cutPoints: "The first {count} points of each line are drawn.", chart: "Chart", summary: "{name}: {count} points, first {first}, last {last}, lowest {least}, highest {most}",
    signal: "Signal", BUY: "Buy", SELL: "Sell", LONG: "Long", SHORT: "Short", HOLD: "Hold", confidence: "Confidence",
    phase: "Phase", killzone: "Killzone", none: "none", entry: "Entry", stopLoss: "Stop", target: "Target", noTarget: "none",
    rr: "R:R", reasons: "Why", horizon: "Horizon", hits: "Won before", age: "Age", stale: "stale",
    pips: "pips", price: "Price", high: "High 24 h", low: "Low 24 h", time: "As of", when: "Time", indicator: "Indicator",
    value: "Value", reading: "Reading", open: "Open", close: "Close", highBar: "High", lowBar: "Low",
    lastRows: "the last {count} of {all}", symbol: "Symbol", side: "Side", size: "Size", profit: "Profit", nothing: "Nothing open.",
    order: "Order", lots: "lots", account: "Account", risk: "Risk", ofAccount: "of the account", latestSignal: "Latest signal",
    warnings: "Mind", approve: "Approve", deny: "Deny", deciding: "Sending your decision…", closes: "It closes what you hold.",
    overrideTitle: "This order needs an override", overrideCheck: "I know, and I want this order",
    overridePlace: "Place it although {reasons}", overridePlaceShort: "Place it anyway",
    pending: "Waiting for you", approved: "Approved, being placed", executed: "Placed", refusedOrder: "Refused", deniedOrder: "Denied by you",
    void: "Expired", voidWhy: "The conversation went on without a decision.", filled: "Executed at", slippage: "Slippage",
    ticketId: "Ticket", units: "units", atNextOpen: "at the open of the next bar", asOf: "price of {time}", override: "Override", decideNone: "No answer to your decision yet. Asking again…",
    ticketNews: "Order to approve: {order}",
    http401: "You are not signed in, or the key is no longer valid.", http403: "This key may not do that.",
    http409: "That cannot be done now.", http429: "Too many requests: try again in a moment.", http5: "The service has a problem: try again in a moment.",
    httpNone: "The service cannot be reached.", days: "{count} d", hours: "{count} h", minutes: "{count} min",
  },
  es: {
    title: "Copiloto OrbiQuant", log: "Conversación", ask: "Pregunta por un mercado…", message: "Mensaje",
    send: "Enviar", stop: "Parar", stopping: "Parando…", fresh: "Chat nuevo", latest: "Ir a lo último ↓",
    you: "Tú", answer: "Respuesta", copy: "Copiar", copied: "Copiado", copyAnswer: "Copiar respuesta", copyCode: "Copiar código",
    table: "Tabla, se desplaza de lado", code: "Código", thinking: "Razonamiento", waiting: "Trabajando…",
    empty: "Pide un precio, una señal, un gráfico de una de tus tablas o una orden. No se opera nada hasta que lo apruebes.",
    examples: ["¿Cuál es el precio de EURUSD?", "Dame una señal de EURUSD", "¿Qué es un fair value gap?"],
    hint: "Intro envía, Mayús+Intro cambia de línea", hintBusy: "Esc dos veces para", sending: "Enviando…",
    slow: "El kernel aún no responde: puede estar ocupado con una celda.",
    tooLong: "{count} de {most} caracteres: demasiado largo para enviar", pasted: "Ese texto tiene {count} caracteres y caben {most}: no se ha pegado.",
    busyHint: "Hay una respuesta en camino: espérala o párala.",
    stopped: "Parado", failed: "La respuesta se interrumpió", retry: "Recuperar la pregunta",
    connecting: "Conectando…", live: "Conectado", working: "Respondiendo", gone: "Sin conexión",
    goneLong: "El kernel no responde: no está, o está ocupado con una celda. Lo que ves está guardado.",
    lostLong: "Se perdió la conexión. Intentando de nuevo…", again: "Reintentar",
    plan: "plan", context: "Contexto", contextLong: "Contexto en uso: {used} de {room} tokens",
    frames: "Tablas que puede leer", tokens: "tokens",
    arguments: "Argumentos", result: "Resultado", cut: "… {count} caracteres más", running: "en marcha", done: "hecho",
    toolFailed: "falló", refused: "rechazado", needsApproval: "espera aprobación", denied: "denegado", unknownTool: "Herramienta",
    needsPlan: "requiere otro plan", notDrawn: "No se dibuja aquí: {kinds}.", noPoints: "No hay nada que dibujar.", undrawn: "Una parte de esta respuesta no se puede dibujar aquí.",
    cutPoints: "Se dibujan los primeros {count} puntos de cada línea.", chart: "Gráfico", summary: "{name}: {count} puntos, primero {first}, último {last}, mínimo {least}, máximo {most}",
    signal: "Señal", BUY: "Comprar", SELL: "Vender", LONG: "Largo", SHORT: "Corto", HOLD: "Esperar", confidence: "Confianza",
    phase: "Fase", killzone: "Killzone", none: "ninguna", entry: "Entrada", stopLoss: "Stop", target: "Objetivo", noTarget: "ninguno",
    rr: "R:R", reasons: "Por qué", horizon: "Horizonte", hits: "Aciertos antes", age: "Edad", stale: "antigua",
    pips: "pips", price: "Precio", high: "Máx. 24 h", low: "Mín. 24 h", time: "A las", when: "Hora", indicator: "Indicador",
    value: "Valor", reading: "Lectura", open: "Apertura", close: "Cierre", highBar: "Máx.", lowBar: "Mín.",
    lastRows: "las últimas {count} de {all}", symbol: "Símbolo", side: "Lado", size: "Tamaño", profit: "Beneficio", nothing: "Nada abierto.",
    order: "Orden", lots: "lotes", account: "Cuenta", risk: "Riesgo", ofAccount: "de la cuenta", latestSignal: "Última señal",
    warnings: "Atención", approve: "Aprobar", deny: "Denegar", deciding: "Enviando tu decisión…", closes: "Cierra lo que tienes abierto.",
    overrideTitle: "Esta orden requiere un override", overrideCheck: "Lo sé, y quiero esta orden",
    overridePlace: "Enviarla aunque {reasons}", overridePlaceShort: "Enviarla igualmente",
    pending: "Te espera", approved: "Aprobada, enviándose", executed: "Enviada", refusedOrder: "Rechazada", deniedOrder: "Denegada por ti",
    void: "Caducada", voidWhy: "La conversación siguió sin decisión.", filled: "Ejecutada a", slippage: "Deslizamiento",
    ticketId: "Ticket", units: "unidades", atNextOpen: "en la apertura de la próxima barra", asOf: "precio de {time}", override: "Override", decideNone: "Aún no hay respuesta a tu decisión. Preguntando de nuevo…",
    ticketNews: "Orden por aprobar: {order}",
    http401: "No has iniciado sesión, o la clave ya no vale.", http403: "Esta clave no puede hacer eso.",
    http409: "Eso no se puede hacer ahora.", http429: "Demasiadas peticiones: prueba en un momento.", http5: "El servicio tiene un problema: prueba en un momento.",
    httpNone: "No se llega al servicio.", days: "{count} d", hours: "{count} h", minutes: "{count} min",
  },
};

// A speaker: say("tooLong", {count: 9000}) → words in its language.
export function speaker(language) {
  const known = Object.hasOwn(WORDS, language) ? language : "en";
  const table = WORDS[known];
  const say = (name, filled = {}) => {
    const text = table[name];
    if (typeof text !== "string") return text;
    return text.replace(/\{(\w+)\}/g, (whole, key) => (key in filled ? String(filled[key]) : whole));
  };
  say.language = known;
  return say;
}
