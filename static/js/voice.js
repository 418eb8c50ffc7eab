// Who speaks, as far as the browser can tell by itself: shown at once, whatever the server says besides.

/** Level from which sound counts as speech; 1 is full scale. */
const THRESHOLD = 0.02;
/** A border stays this long after the last loud moment, so that it does not flicker between words, ms. */
const HOLD = 600;
const PERIOD = 150;

/** Turns levels into "speaks" with a hold time. */
export class Hold {
  #until = 0;

  update(level, now) {
    if (level >= THRESHOLD) this.#until = now + HOLD;
    return now < this.#until;
  }
}

/** Calls `look(now)` at an even pace for as long as the page lives. */
export function everyBeat(look) {
  setInterval(() => look(performance.now()), PERIOD);
}

/** Level of a received audio track, 0 to 1: from its header extension or the decoder. */
export function receivedLevel(receiver) {
  const levels = receiver?.getSynchronizationSources?.().map((source) => source.audioLevel ?? 0) ?? [];
  return Math.max(0, ...levels);
}

/** Measures the own microphone. */
export class Microphone {
  #context = null;
  #analyser = null;
  #source = null;
  #track = null;
  #samples = new Float32Array(512);

  /** Follows another track; null follows none. */
  follow(track) {
    if (track === this.#track) return;
    this.#track = track;
    this.#source?.disconnect();
    this.#source = null;
    if (!track || !window.AudioContext) return;
    this.#context ??= new AudioContext();
    this.#analyser ??= new AnalyserNode(this.#context, { fftSize: this.#samples.length });
    this.#source = this.#context.createMediaStreamSource(new MediaStream([track]));
    this.#source.connect(this.#analyser);
  }

  /** RMS of the last moments, 0 to 1. */
  level() {
    if (!this.#source || !this.#track.enabled) return 0;
    this.#analyser.getFloatTimeDomainData(this.#samples);
    return Math.sqrt(this.#samples.reduce((sum, sample) => sum + sample * sample, 0) / this.#samples.length);
  }

  close() {
    this.follow(null);
    this.#context?.close();
    this.#context = this.#analyser = null;
  }
}
