// Offer and answer of one RTCPeerConnection. Questions before offers keep offers from crossing. Where they cross
// all the same, the server takes its own back and answers ours, so this side must not do that too: the crossing
// offer is set aside, and used only if ours stays without an answer. Every step runs in one queue, so no two
// descriptions are ever set at once.

/** After this long without an answer an offer is taken back and made again, ms. */
const ANSWER_TIMEOUT = 10_000;
/** The server keeps quiet for 10 s after `true`; a question without a reply is asked again a little later, ms. */
const ASK_TIMEOUT = 12_000;
/** Offers in a row that may stay unanswered before the page gives up. */
const MAX_TRIES = 3;

/**
 * States of the own offer:
 * idle, asking (`is_allow_renegotiation` is out), refused (waits for the push), offering (waits for the answer).
 */
export class Negotiation {
  #pc;
  #send;
  #fail;
  #heard;
  #queue = Promise.resolve();
  #phase = 'idle';
  #wanted = false;
  #mayOfferAtOnce;
  #crossed = null;
  #tries = 0;
  #timer = 0;
  #early = [];
  #stereo;
  #closed = false;

  /**
   * `send(type, data)` reaches the server, `fail(sentence)` the user. `heard()`: whether the server can answer now; while
   * it cannot, no time limit ends.
   * `stereo`: Opus is to have two channels, both ways.
   * `offersFirst`: a publisher makes the very first offer without asking; everybody asks for later ones.
   */
  constructor(pc, { send, fail, heard, offersFirst, stereo = false }) {
    this.#stereo = stereo;
    this.#pc = pc;
    this.#send = send;
    this.#fail = fail;
    this.#heard = heard;
    this.#mayOfferAtOnce = offersFirst;
    pc.addEventListener('negotiationneeded', () => {
      this.#wanted = true;
      this.#advance();
    });
    pc.addEventListener('icecandidate', ({ candidate }) => {
      // `null` ends the candidates; the wire says that with an empty one.
      this.#send('candidate', candidate ? candidate.toJSON() : { candidate: '' });
    });
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  /** The server's offer, at any time. */
  handleOffer(sdp) {
    return this.#enqueue('The offer of the server could not be used', async () => {
      const pc = this.#pc;
      if (pc.signalingState === 'have-local-offer') {
        this.#crossed = sdp;
        return;
      }
      await pc.setRemoteDescription({ type: 'offer', sdp });
      await this.#describe('createAnswer');
      this.#mayOfferAtOnce = false;
      this.#send('answer', { type: 'answer', sdp: pc.localDescription.sdp });
      await this.#addEarly();
    });
  }

  /** The server's answer to an offer of ours. */
  handleAnswer(sdp) {
    return this.#enqueue('The answer of the server could not be used', async () => {
      if (this.#pc.signalingState !== 'have-local-offer') return;
      await this.#pc.setRemoteDescription({ type: 'answer', sdp });
      this.#crossed = null;
      this.#tries = 0;
      this.#enter('idle');
      await this.#addEarly();
    });
  }

  /** A trickled candidate of the server; one that comes too early waits for its description. */
  handleCandidate(candidate) {
    return this.#enqueue(null, async () => {
      const init = typeof candidate === 'string' ? { candidate, sdpMLineIndex: 0 } : candidate;
      if (this.#pc.remoteDescription) await this.#pc.addIceCandidate(init);
      else this.#early.push(init);
    });
  }

  /** The reply to `is_allow_renegotiation`, or the later push. */
  handleAllowed(value) {
    if (this.#phase === 'asking') {
      // A push that crosses the question changes nothing: the reply itself still comes.
      if (value === true) this.#offer();
      else if (value === false) this.#enter('refused');
    } else if (this.#phase === 'refused' && value !== false) {
      this.#ask();
    }
  }

  #advance() {
    if (this.#closed || !this.#wanted || this.#phase !== 'idle') return;
    if (this.#mayOfferAtOnce) {
      this.#mayOfferAtOnce = false;
      this.#offer();
    } else {
      this.#ask();
    }
  }

  #ask() {
    this.#enter('asking');
    this.#send('is_allow_renegotiation');
  }

  #offer() {
    this.#enter('offering');
    return this.#enqueue('The browser could not make an offer', async () => {
      if (this.#pc.signalingState !== 'stable') {
        this.#enter('idle');
        return;
      }
      this.#wanted = false;
      await this.#describe('createOffer');
      this.#send('offer', { type: 'offer', sdp: this.#pc.localDescription.sdp });
    });
  }

  /** Sets the own description. That sound is to have two channels, browsers say only if they are told to. */
  async #describe(create) {
    if (!this.#stereo) return this.#pc.setLocalDescription();
    const { type, sdp } = await this.#pc[create]();
    return this.#pc.setLocalDescription({ type, sdp: withStereo(sdp) });
  }

  /** Changes the phase and arms its time limit; phases without a limit have none left over. */
  #enter(phase) {
    this.#phase = phase;
    clearTimeout(this.#timer);
    if (this.#closed || phase === 'idle') return;
    const limit = phase === 'offering' ? ANSWER_TIMEOUT : ASK_TIMEOUT;
    this.#timer = setTimeout(() => this.#expire(phase), limit);
  }

  #expire(phase) {
    if (!this.#heard()) {
      this.#enter(phase);
      return;
    }
    if (phase !== 'offering') {
      this.#ask();
      return;
    }
    this.#tries += 1;
    if (this.#tries >= MAX_TRIES) {
      this.#fail('The server does not answer. Leave and join again.');
      return;
    }
    this.#enqueue(null, async () => {
      if (this.#pc.signalingState === 'have-local-offer') {
        await this.#pc.setLocalDescription({ type: 'rollback' });
      }
      this.#wanted = true;
      this.#enter('idle');
      // Behind this step in the queue: by then the connection is stable again.
      if (this.#crossed !== null) this.handleOffer(this.#crossed);
      this.#crossed = null;
    });
  }

  async #addEarly() {
    for (const init of this.#early.splice(0)) {
      await this.#pc.addIceCandidate(init).catch(() => {}); // Of a description that was rolled back.
    }
  }

  /** Runs `step` after all earlier ones. `complaint` is told to the user when it fails; null keeps it quiet. */
  #enqueue(complaint, step) {
    this.#queue = this.#queue
      .then(() => (this.#closed ? undefined : step()))
      .catch((error) => {
        if (!this.#closed && complaint) this.#fail(`${complaint} (${error.message}).`);
      })
      .then(() => this.#advance());
    return this.#queue;
  }
}

/**
 * The order in which codecs are offered: H.264 constrained baseline in packetization mode 1 first, because that is
 * what the server can also mix. What is no codec of its own (rtx, red, ulpfec) keeps its place at the end.
 */
export function codecRank({ mimeType, sdpFmtpLine = '' }) {
  const type = mimeType.toLowerCase();
  if (type === 'video/h264') {
    if (!sdpFmtpLine.includes('packetization-mode=1')) return 3;
    if (/profile-level-id=42e0/i.test(sdpFmtpLine)) return 0;
    return /profile-level-id=42/i.test(sdpFmtpLine) ? 1 : 2;
  }
  const rest = ['video/vp8', 'video/vp9', 'video/av1'].indexOf(type);
  return rest < 0 ? 9 : 4 + rest;
}

/** Puts H.264 first on a transceiver that sends video. Without the browser's support the default order stays. */
export function preferH264(transceiver) {
  const codecs = RTCRtpReceiver.getCapabilities?.('video')?.codecs;
  if (!codecs || !transceiver.setCodecPreferences) return;
  try {
    transceiver.setCodecPreferences([...codecs].sort((a, b) => codecRank(a) - codecRank(b)));
  } catch {
    // A browser that refuses the list (older Firefox) offers its own order, which works as well.
  }
}

/** Says of every Opus that both directions may have two channels (RFC 7587, section 6.1). */
export function withStereo(sdp) {
  const opus = new Set([...sdp.matchAll(/^a=rtpmap:(\d+) opus\/48000\/2/gim)].map(([, number]) => number));
  return sdp.replace(/^(a=fmtp:(\d+) [^\r\n]*)/gm, (line, all, number) => (
    opus.has(number) && !/(^|[ ;])stereo=/.test(all) ? `${all};stereo=1;sprop-stereo=1` : line
  ));
}
