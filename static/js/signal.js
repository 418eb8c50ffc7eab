// The signalling: envelopes in and out, nothing of their meaning. It outlives its sockets: one that breaks is followed by
// another that goes on where it ended, with the same client id, and nothing lost or said twice.

/** Close codes after which coming back makes no sense: normal, policy refusal. */
const FINAL_CODES = new Set([1000, 1008]);
/** The server keeps our place for this long, ms. */
const RESUME_LIMIT = 30_000;
/** Waits before another try to resume, ms; the last one repeats. */
const RETRIES = [0, 250, 500, 1000];
/** A try without a welcome after this long is given up, ms. */
const TRY_LIMIT = 4000;
/** The server sends figures every second once media flows; a socket without anything for this long is dead, ms. */
const SILENCE = 8000;
/** How often that is looked at, ms. */
const WATCH_PERIOD = 2000;
/** Sent messages that are kept, in case that they did not arrive. */
const KEPT = 256;

/**
 * `handlers.message(type, data, status)`, `handlers.broken()` when the socket is lost, `handlers.resumed()` when another one
 * goes on, and, once, `handlers.closed({opened, final, reason})`.
 */
export class Signal {
  #url;
  #handlers;
  #socket;
  #opened = false;
  #done = false;
  #token = null;
  /** Numbered messages of the server that we have. */
  #seen = 0;
  /** The latest messages of ours, as text; `#said` is the number of the last one. */
  #log = [];
  #said = 0;
  #brokenSince = 0;
  #trial = null;
  #tries = 0;
  #timer = 0;
  #heard = performance.now();
  #figures = false;
  #watch = 0;

  constructor(url, handlers) {
    this.#url = url;
    this.#handlers = handlers;
    this.#socket = new WebSocket(url);
    this.#socket.onopen = () => { this.#opened = true; };
    this.#use(this.#socket);
    this.#watch = setInterval(() => this.#look(), WATCH_PERIOD);
  }

  get socket() {
    return this.#socket;
  }

  /** Whether the socket is lost and another one not there yet. */
  get broken() {
    return this.#brokenSince > 0;
  }

  /** Sends an envelope, later if the socket is lost for now; false when there is none to send it. */
  send(type, data) {
    if (this.#done || (!this.#token && this.#socket.readyState !== WebSocket.OPEN)) return false;
    const text = JSON.stringify(data === undefined ? { type } : { type, data });
    this.#log.push(text);
    this.#said += 1;
    if (this.#log.length > KEPT) this.#log.shift();
    if (!this.broken && this.#socket.readyState === WebSocket.OPEN) this.#socket.send(text);
    return true;
  }

  /** The network may be another one: a new socket takes over if it can, and the old one serves until then. */
  probe() {
    if (this.#done || !this.#token) return;
    if (this.broken) this.#tries = 0;
    if (!this.#trial) this.#try();
  }

  /** Closes for good. No handler is called any more. */
  close() {
    this.#stop();
    this.#socket.close(1000);
  }

  #stop() {
    this.#done = true;
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    this.#trial?.close();
    this.#trial = null;
  }

  #use(socket) {
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#lost(event);
  }

  #receive(text) {
    const envelope = this.#done ? null : parse(text);
    if (!envelope) return;
    const { type, data } = envelope;
    this.#heard = performance.now();
    if (type === 'welcome') {
      this.#token = data?.resume_token ?? null;
    } else if (type === 'track_stats') {
      this.#figures = true;
    } else if (type !== 'clientid') {
      this.#seen += 1;
    }
    this.#handlers.message(type, data, envelope.status !== false);
  }

  /** The socket in use has ended. */
  #lost({ code, reason }) {
    if (this.#done) return;
    if (FINAL_CODES.has(code) || !this.#token) {
      this.#finish(FINAL_CODES.has(code), reason);
      return;
    }
    this.#break();
  }

  #break() {
    if (this.broken) return;
    this.#brokenSince = performance.now();
    this.#tries = 0;
    this.#handlers.broken?.();
    if (!this.#trial) this.#retry();
  }

  /** A dead network ends no socket, for minutes. */
  #look() {
    const silence = performance.now() - this.#heard;
    if (this.#figures && !this.broken && silence > SILENCE) this.probe();
  }

  #retry() {
    clearTimeout(this.#timer);
    if (performance.now() - this.#brokenSince > RESUME_LIMIT) {
      this.#finish(false, '');
      return;
    }
    const wait = RETRIES[Math.min(this.#tries, RETRIES.length - 1)];
    this.#tries += 1;
    this.#timer = setTimeout(() => this.#try(), wait);
  }

  #try() {
    clearTimeout(this.#timer);
    const url = new URL(this.#url);
    url.searchParams.set('resume', this.#token);
    url.searchParams.set('seen', this.#seen);
    const trial = new WebSocket(url);
    this.#trial = trial;
    this.#timer = setTimeout(() => trial.close(), TRY_LIMIT);
    trial.onmessage = (event) => {
      const envelope = parse(event.data);
      if (envelope?.type === 'welcome') this.#welcome(trial, envelope.data ?? {});
    };
    trial.onclose = () => {
      if (this.#done || this.#trial !== trial) return;
      this.#trial = null;
      clearTimeout(this.#timer);
      if (this.broken) this.#retry();
    };
  }

  /** The server's first words on a new socket: whether it knows us, and what it has of us. */
  #welcome(trial, { resumed, resume_token: token, sent, received }) {
    clearTimeout(this.#timer);
    this.#trial = null;
    const forgotten = this.#said - this.#log.length;
    if (this.#done || resumed !== true || received < forgotten) {
      trial.onclose = null;
      if (trial.readyState === WebSocket.OPEN) trial.send(JSON.stringify({ type: 'leave' }));
      trial.close(1000);
      this.#finish(false, '');
      return;
    }
    const old = this.#socket;
    old.onmessage = old.onclose = null;
    old.close();
    this.#socket = trial;
    this.#token = token;
    this.#seen = sent;
    this.#heard = performance.now();
    this.#figures = false;
    this.#brokenSince = 0;
    this.#use(trial);
    for (const text of this.#log.slice(received - forgotten)) trial.send(text);
    this.#handlers.resumed?.();
  }

  #finish(final, reason) {
    if (this.#done) return;
    this.#stop();
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#handlers.closed({ opened: this.#opened, final, reason });
  }
}

/** An envelope; null where nothing could be done with what came. */
function parse(text) {
  if (typeof text !== 'string') return null;
  try {
    const envelope = JSON.parse(text);
    return typeof envelope?.type === 'string' ? envelope : null;
  } catch {
    return null;
  }
}

/**
 * The address of the socket for a page address. The page's own query is passed on, with `changes`
 * laid over it; a change of `null` takes a key out.
 */
export function socketUrl(location, changes) {
  const query = new URLSearchParams(location.search);
  for (const [key, value] of Object.entries({ resume: null, seen: null, ...changes })) {
    if (value === null || value === '') query.delete(key);
    else query.set(key, value);
  }
  const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
  return `${scheme}//${location.host}/ws?${query}`;
}
