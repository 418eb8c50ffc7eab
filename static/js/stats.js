// What the connection does: figures from getStats, once a second, and their panel.

/** Reads a peer connection's figures; rates come from the difference to the reading before. */
export class StatsReader {
  #pc;
  #before = new Map();

  constructor(pc) {
    this.#pc = pc;
  }

  /**
   * `{roundTripMs, availableOutgoing, path, upKbps, downKbps, limitation, tracks}`; a track is
   * `{direction: "in"|"out", kind, trackId, codec, width, height, fps, kbps, lossPercent, jitterMs, frames}`.
   * What the browser does not tell is null.
   */
  async read() {
    const report = await this.#pc.getStats();
    const pair = selectedPair(report);
    const tracks = [];
    const seen = new Map();
    for (const stat of report.values()) {
      if (stat.type === 'inbound-rtp') tracks.push(this.#inbound(stat, report));
      else if (stat.type === 'outbound-rtp') tracks.push(this.#outbound(stat, report));
      seen.set(stat.id, stat);
    }
    this.#before = seen;
    const sum = (direction) => tracks.filter((track) => track.direction === direction)
      .reduce((total, track) => total + (track.kbps ?? 0), 0);
    return {
      roundTripMs: pair?.currentRoundTripTime === undefined ? null : pair.currentRoundTripTime * 1000,
      availableOutgoing: pair?.availableOutgoingBitrate ?? null,
      path: describePath(pair, report),
      upKbps: sum('out'),
      downKbps: sum('in'),
      limitation: tracks.find((track) => track.limitation)?.limitation ?? 'none',
      tracks,
    };
  }

  #inbound(stat, report) {
    return {
      direction: 'in',
      kind: stat.kind,
      trackId: stat.trackIdentifier ?? '',
      ...this.#common(stat, report, stat.bytesReceived),
      lossPercent: this.#loss(stat),
      jitterMs: stat.jitter === undefined ? null : stat.jitter * 1000,
      frames: stat.framesDecoded ?? null,
    };
  }

  #outbound(stat, report) {
    const source = report.get(stat.mediaSourceId);
    const far = report.get(stat.remoteId);
    return {
      direction: 'out',
      kind: stat.kind,
      trackId: source?.trackIdentifier ?? '',
      ...this.#common(stat, report, stat.bytesSent),
      lossPercent: far?.fractionLost === undefined ? null : far.fractionLost * 100,
      jitterMs: far?.jitter === undefined ? null : far.jitter * 1000,
      frames: stat.framesEncoded ?? null,
      limitation: stat.qualityLimitationReason,
    };
  }

  #common(stat, report, bytes) {
    const before = this.#before.get(stat.id);
    const seconds = before ? (stat.timestamp - before.timestamp) / 1000 : 0;
    const earlier = before?.bytesReceived ?? before?.bytesSent ?? 0;
    return {
      codec: report.get(stat.codecId)?.mimeType?.split('/')[1] ?? null,
      width: stat.frameWidth ?? null,
      height: stat.frameHeight ?? null,
      fps: stat.framesPerSecond ?? null,
      kbps: seconds > 0 ? Math.max(0, ((bytes - earlier) * 8) / 1000 / seconds) : null,
    };
  }

  /** Loss between two readings, percent; a late packet that arrives makes the counter fall, which is no loss. */
  #loss(stat) {
    const before = this.#before.get(stat.id);
    if (!before) return null;
    const lost = Math.max(0, stat.packetsLost - before.packetsLost);
    const all = lost + stat.packetsReceived - before.packetsReceived;
    return all > 0 ? (lost / all) * 100 : 0;
  }
}

function selectedPair(report) {
  for (const stat of report.values()) {
    if (stat.type === 'transport' && stat.selectedCandidatePairId) return report.get(stat.selectedCandidatePairId);
  }
  // Firefox has no transport entry.
  return [...report.values()].find((stat) => stat.type === 'candidate-pair' && stat.nominated && stat.state === 'succeeded');
}

function describePath(pair, report) {
  const local = report.get(pair?.localCandidateId);
  return local ? `${local.protocol ?? ''} ${local.candidateType ?? ''}`.trim() : '';
}

/** One line for a tile: resolution, rate and the rest as far as known. */
export function caption(track) {
  return [
    track.width ? `${track.width}×${track.height}` : null,
    track.fps === null ? null : `${Math.round(track.fps)} fps`,
    bitrate(track.kbps),
    percent(track.lossPercent),
    track.codec,
  ].filter(Boolean).join(' · ');
}

/** Fills the panel. `nameOf(track)` says whose an incoming track is. */
export function render(panel, figures, nameOf) {
  const summary = [
    ['Round trip', figures.roundTripMs === null ? '–' : `${Math.round(figures.roundTripMs)} ms`],
    ['Up', bitrate(figures.upKbps)],
    ['Down', bitrate(figures.downKbps)],
    ['Path', figures.path || '–'],
  ];
  const list = element('dl', 'summary');
  for (const [term, value] of summary) {
    const pair = element('div');
    pair.append(element('dt', '', term), element('dd', '', value));
    list.append(pair);
  }
  const rows = figures.tracks.map((track) => row(track, nameOf(track)));
  panel.replaceChildren(element('h2', '', 'Connection'), list, ...rows);
}

function row(track, name) {
  const line = element('div', 'stat-row');
  const arrow = track.direction === 'in' ? '↓' : '↑';
  const details = [
    track.width ? `${track.width}×${track.height}` : null,
    track.fps === null ? null : `${Math.round(track.fps)} fps`,
    bitrate(track.kbps),
    track.lossPercent === null ? null : `${percent(track.lossPercent)} lost`,
    track.jitterMs === null ? null : `${track.jitterMs.toFixed(1)} ms jitter`,
    track.codec,
    track.limitation && track.limitation !== 'none' ? `limited by ${track.limitation}` : null,
  ];
  line.append(
    element('strong', '', `${arrow} ${name} · ${track.kind}`),
    element('span', '', details.filter(Boolean).join(' · ')),
  );
  return line;
}

function bitrate(kbps) {
  if (kbps === null) return '–';
  return kbps >= 1000 ? `${(kbps / 1000).toFixed(1)} Mbit/s` : `${Math.round(kbps)} kbit/s`;
}

function percent(value) {
  return value === null ? null : `${value.toFixed(value >= 10 || value === 0 ? 0 : 1)} %`;
}

function element(tag, className = '', text = '') {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.textContent = text;
  return node;
}
