//! JavaScript that the tests run in pages. All of it works on any page: what it needs is hooked in before the page loads.

/// Runs before every page: keeps the page's peer connections, counts what the signalling brings and watches the pictures of every
/// video track that arrives (where a page can: not in Firefox), in `__bench`. Moments there are milliseconds of the machine's clock, so those of two browsers compare.
pub const HOOKS: &str = r#"
(() => {
  const bench = { pcs: [], remoteOffers: 0, remoteAnswers: 0, localOffers: 0, messages: {}, last: {}, sockets: [],
                  tracks: [], channels: [], firstOffer: null, now: () => performance.timeOrigin + performance.now() };
  Object.defineProperty(window, '__bench', { value: bench });
  // Decoded pictures as they leave the decoder, whether an element shows them or not.
  const watch = async (event) => {
    const { track } = event, seen = { kind: track.kind, id: track.id, stream: event.streams[0]?.id ?? null, first: null, last: null, frames: 0, longest: 0, heights: {} };
    bench.tracks.push(seen);
    if (track.kind !== 'video' || !window.MediaStreamTrackProcessor) return;
    const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const now = bench.now();
      seen.heights[value.displayHeight] ??= now;
      value.close();
      seen.first ??= now;
      if (seen.last !== null) seen.longest = Math.max(seen.longest, now - seen.last);
      seen.last = now;
      seen.frames++;
    }
  };
  // The microphone is a file: what browsers do against echo and noise would only spoil it.
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const devices = navigator.mediaDevices, open = devices?.getUserMedia;
  if (open) devices.getUserMedia = wanted => open.call(devices, wanted.audio ? { ...wanted, audio: plain } : wanted);
  const Native = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Native {
    constructor(...args) {
      super(...args);
      bench.pcs.push(this);
      this.addEventListener('track', watch);
      this.addEventListener('datachannel', ({ channel }) => bench.channels.push(channel));
    }
    setRemoteDescription(d) {
      if (d && d.type === 'offer') bench.remoteOffers++;
      if (d && d.type === 'answer') bench.remoteAnswers++;
      return super.setRemoteDescription(...arguments);
    }
    setLocalDescription(d) {
      if (d ? d.type === 'offer' : this.signalingState !== 'have-remote-offer') {
        bench.localOffers++;
        bench.firstOffer ??= bench.now();
      }
      return super.setLocalDescription(...arguments);
    }
  };
  const Socket = window.WebSocket;
  window.WebSocket = class extends Socket {
    constructor(...args) {
      super(...args);
      bench.sockets.push(this);
      this.addEventListener('message', e => {
        try {
          const { type, data } = JSON.parse(e.data);
          bench.messages[type] = (bench.messages[type] || 0) + 1;
          bench.last[type] = data;
        } catch {}
      });
    }
  };
})();
"#;

/// Arguments: CSS selector of a `<video>`, points as `[[x, y]…]` in shares of width and height.
/// Gives `[[r, g, b]…]`, the means of 5x5 pixels; null while there is no picture.
pub const PIXELS: &str = r#"
const [selector, points] = arguments;
const video = document.querySelector(selector);
if (!video || !video.videoWidth || video.readyState < 2) return null;
const canvas = document.createElement('canvas');
canvas.width = video.videoWidth; canvas.height = video.videoHeight;
const context = canvas.getContext('2d', { willReadFrequently: true });
context.drawImage(video, 0, 0);
return points.map(([x, y]) => {
  const left = Math.min(Math.max(Math.round(x * canvas.width) - 2, 0), canvas.width - 5);
  const top = Math.min(Math.max(Math.round(y * canvas.height) - 2, 0), canvas.height - 5);
  const data = context.getImageData(left, top, 5, 5).data;
  const sum = [0, 0, 0];
  for (let i = 0; i < data.length; i += 4) for (let c = 0; c < 3; c++) sum[c] += data[i + c];
  return sum.map(s => Math.round(s / 25));
});
"#;

/// Asynchronous. Arguments: CSS selector of a media element, milliseconds. Gives what the element's stream sounds like:
/// `{samples: [int16…]}` mono at 48 kHz, or `{error}`.
pub const RECORD: &str = r#"
const [selector, milliseconds, done] = arguments;
(async () => {
  const stream = document.querySelector(selector)?.srcObject;
  if (!stream || !stream.getAudioTracks().length) throw new Error('no audio at ' + selector);
  const context = new AudioContext({ sampleRate: 48000 });
  await context.resume();
  const code = `registerProcessor('tap', class extends AudioWorkletProcessor {
    process(inputs) { const channels = inputs[0]; if (channels.length) {
      const mono = new Float32Array(channels[0].length);
      for (const c of channels) for (let i = 0; i < mono.length; i++) mono[i] += c[i] / channels.length;
      this.port.postMessage(mono); } return true; } });`;
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([code], { type: 'text/javascript' })));
  const source = context.createMediaStreamSource(new MediaStream(stream.getAudioTracks()));
  const tap = new AudioWorkletNode(context, 'tap', { numberOfOutputs: 0 });
  const wanted = Math.round(48 * milliseconds), samples = [];
  await new Promise(full => {
    tap.port.onmessage = e => {
      for (const s of e.data) samples.push(Math.round(Math.max(-1, Math.min(1, s)) * 32767));
      if (samples.length >= wanted) full();
    };
    source.connect(tap);
  });
  source.disconnect();
  await context.close();
  return { samples: samples.slice(0, wanted) };
})().then(done, e => done({ error: String(e) }));
"#;

/// Asynchronous. Gives one object for each open peer connection of the page, its getStats() boiled down.
pub const STATS: &str = r#"
const done = arguments[arguments.length - 1];
(async () => {
  const result = [];
  for (const pc of window.__bench.pcs) {
    if (pc.connectionState === 'closed') continue;
    const report = await pc.getStats();
    const one = { connection: pc.connectionState, signaling: pc.signalingState,
                  mlines: pc.localDescription ? (pc.localDescription.sdp.match(/^m=/gm) || []).length : 0,
                  inbound: [], outbound: [], srtp: null, rtt: null };
    report.forEach(s => {
      const codec = s.codecId && report.get(s.codecId) ? report.get(s.codecId).mimeType : null;
      if (s.type === 'inbound-rtp') one.inbound.push({ kind: s.kind, mid: s.mid, track: s.trackIdentifier, ssrc: s.ssrc, codec,
        packets: s.packetsReceived || 0, lost: s.packetsLost || 0, bytes: s.bytesReceived || 0, frames: s.framesDecoded || 0,
        keyframes: s.keyFramesDecoded || 0, width: s.frameWidth || 0, height: s.frameHeight || 0, freezes: s.freezeCount || 0,
        frozen: s.totalFreezesDuration || 0, energy: s.totalAudioEnergy || 0, concealed: s.concealedSamples || 0, silent: s.silentConcealedSamples || 0,
        samples: s.totalSamplesReceived || 0, rtx: s.rtxSsrc || null, repaired: s.retransmittedPacketsReceived || 0, nacks: s.nackCount || 0, plis: s.pliCount || 0 });
      if (s.type === 'outbound-rtp') one.outbound.push({ kind: s.kind, mid: s.mid, rid: s.rid || null, ssrc: s.ssrc, codec, packets: s.packetsSent || 0, bytes: s.bytesSent || 0,
        frames: s.framesEncoded || 0, rtx: s.rtxSsrc || null, repeated: s.retransmittedPacketsSent || 0, width: s.frameWidth || 0, height: s.frameHeight || 0, limited: s.qualityLimitationReason || null,
        nacks: s.nackCount || 0, plis: s.pliCount || 0 });
      if (s.type === 'transport') one.srtp = s.srtpCipher || null;
      if (s.type === 'candidate-pair' && s.nominated) one.rtt = s.currentRoundTripTime;
    });
    result.push(one);
  }
  return result;
})().then(done, e => done({ error: String(e) }));
"#;
