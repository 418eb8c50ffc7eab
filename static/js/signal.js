// The signalling socket: envelopes in and out, nothing of their meaning.

/** Close codes after which joining again makes no sense: normal, policy refusal. */
const FINAL_CODES = new Set([1000, 1008]);

/**
 * One WebSocket of the server.
 * `handlers.open()`, `handlers.message(type, data, status)` and, once, `handlers.closed({opened, final, reason})`.
 */
export class Signal {
  #socket;
  #opened = false;
  #done = false;
  #handlers;

  constructor(url, handlers) {
    this.#handlers = handlers;
    this.#socket = new WebSocket(url);
    this.#socket.onopen = () => {
      this.#opened = true;
      handlers.open?.();
    };
    this.#socket.onmessage = (event) => this.#receive(event.data);
    this.#socket.onclose = (event) => this.#finish(FINAL_CODES.has(event.code), event.reason);
  }

  get socket() {
    return this.#socket;
  }

  /** Sends an envelope; false when the socket is not open (the session is then being rebuilt anyway). */
  send(type, data) {
    if (this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(data === undefined ? { type } : { type, data }));
    return true;
  }

  /** Closes for good. No handler is called any more. */
  close() {
    this.#done = true;
    this.#socket.close(1000);
  }

  #receive(text) {
    if (this.#done || typeof text !== 'string') return;
    let envelope;
    try {
      envelope = JSON.parse(text);
    } catch {
      return; // Not an envelope: nothing this page could do with it.
    }
    if (typeof envelope?.type !== 'string') return;
    this.#handlers.message(envelope.type, envelope.data, envelope.status !== false);
  }

  #finish(final, reason) {
    if (this.#done) return;
    this.#done = true;
    this.#handlers.closed({ opened: this.#opened, final, reason });
  }
}

/**
 * The address of the socket for a page address. The page's own query is passed on, with `changes`
 * laid over it; a change of `null` takes a key out.
 */
export function socketUrl(location, changes) {
  const query = new URLSearchParams(location.search);
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === '') query.delete(key);
    else query.set(key, value);
  }
  const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
  return `${scheme}//${location.host}/ws?${query}`;
}
