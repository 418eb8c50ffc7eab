"""A participant written in another language: aiortc, H.264 and Opus, speaking the protocol of the old clients.

It never trickles candidates and knows no transport-wide feedback. Prints one JSON object a line:
  {"event": "joined", "client_id": …}
  {"event": "stats", "state": …, "offers": …, "tracks": [{"kind", "track", "frames", "width", "height", "rgb", "tones": {hz: dBFS}}]}
  {"event": "refused", "error": …, "sdp": …}       an offer that aiortc does not take
  {"event": "message", "type": …, "data": …}      for what is not part of the connection set-up
  {"event": "end"}
"""

import argparse
import array
import asyncio
import fractions
import json
import math
import sys
import time
from urllib.parse import urlencode

import websockets
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcrtpsender import RTCRtpSender
from aiortc.sdp import candidate_from_sdp
from av import AudioFrame, VideoFrame

SAMPLE_RATE = 48000
FRAME_SAMPLES = 960
WIDTH, HEIGHT, FPS = 640, 360, 20


def emit(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


class Tone(MediaStreamTrack):
    """A sine at -14 dBFS."""

    kind = "audio"

    def __init__(self, hz):
        super().__init__()
        self.hz, self.at, self.start = hz, 0, None

    async def recv(self):
        self.start = self.start or time.monotonic()
        await asyncio.sleep(max(0, self.start + self.at / SAMPLE_RATE - time.monotonic()))
        step = 2 * math.pi * self.hz / SAMPLE_RATE
        samples = array.array("h", (int(9000 * math.sin(step * (self.at + i))) for i in range(FRAME_SAMPLES)))
        frame = AudioFrame(format="s16", layout="mono", samples=FRAME_SAMPLES)
        frame.planes[0].update(samples.tobytes())
        frame.sample_rate, frame.pts = SAMPLE_RATE, self.at
        frame.time_base = fractions.Fraction(1, SAMPLE_RATE)
        self.at += FRAME_SAMPLES
        return frame


class Colour(MediaStreamTrack):
    """A plain colour with a bar that moves along the bottom."""

    kind = "video"

    def __init__(self, rgb):
        super().__init__()
        self.yuv, self.at, self.start = yuv_of(rgb), 0, None

    async def recv(self):
        self.start = self.start or time.monotonic()
        await asyncio.sleep(max(0, self.start + self.at / FPS - time.monotonic()))
        luma, cb, cr = self.yuv
        frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
        bar = (self.at * 8) % (WIDTH - 64)
        row = bytes([luma]) * WIDTH
        marked = row[:bar] + bytes([235]) * 64 + row[bar + 64 :]
        lines = [marked if HEIGHT - 40 <= y < HEIGHT - 20 else row for y in range(HEIGHT)]
        for plane, value in zip(frame.planes, (None, cb, cr)):
            width = WIDTH if value is None else WIDTH // 2
            source = lines if value is None else [bytes([value]) * width] * (HEIGHT // 2)
            plane.update(b"".join(line.ljust(plane.line_size, b"\0") for line in source))
        frame.pts, frame.time_base = self.at * 90000 // FPS, fractions.Fraction(1, 90000)
        self.at += 1
        return frame


class Received:
    """What came of one remote track."""

    def __init__(self, track, tones):
        self.track, self.tones = track, tones
        self.frames, self.size, self.rgb, self.heard = 0, (0, 0), None, {}

    async def read(self):
        while True:
            try:
                frame = await self.track.recv()
            except Exception:  # the track has ended
                return
            self.frames += 1
            if self.track.kind == "video":
                self.size = (frame.width, frame.height)
                if self.frames % 10 == 1:
                    self.rgb = centre_of(frame.reformat(format="yuv420p"))
            elif self.frames % 5 == 1:
                self.heard = {hz: level_at(frame, hz) for hz in self.tones}

    def report(self):
        return {
            "kind": self.track.kind,
            "track": self.track.id,
            "frames": self.frames,
            "width": self.size[0],
            "height": self.size[1],
            "rgb": self.rgb,
            "tones": self.heard,
        }


def yuv_of(rgb):
    r, g, b = rgb
    return (
        round(16 + 0.257 * r + 0.504 * g + 0.098 * b),
        round(128 - 0.148 * r - 0.291 * g + 0.439 * b),
        round(128 + 0.439 * r - 0.368 * g - 0.071 * b),
    )


def centre_of(frame):
    planes = frame.planes
    x, y = frame.width // 2, frame.height // 2
    luma = bytes(planes[0])[y * planes[0].line_size + x]
    cb, cr = (bytes(p)[(y // 2) * p.line_size + x // 2] for p in planes[1:3])
    scaled = 1.164 * (luma - 16)
    rgb = (scaled + 1.596 * (cr - 128), scaled - 0.392 * (cb - 128) - 0.813 * (cr - 128), scaled + 2.017 * (cb - 128))
    return [max(0, min(255, round(v))) for v in rgb]


def level_at(frame, hz):
    """Level of a sine in dBFS in one 20 ms frame of interleaved 16 bit samples (its resolution is 50 Hz)."""
    samples = array.array("h", bytes(frame.planes[0])[: frame.samples * len(frame.layout.channels) * 2])
    samples = samples[:: len(frame.layout.channels)]
    step = 2 * math.pi * hz / frame.sample_rate
    windowed = [s * (0.5 - 0.5 * math.cos(2 * math.pi * i / len(samples))) for i, s in enumerate(samples)]
    re = sum(s * math.cos(step * i) for i, s in enumerate(windowed))
    im = sum(s * math.sin(step * i) for i, s in enumerate(windowed))
    amplitude = 4 * math.hypot(re, im) / len(samples) / 32768
    return round(20 * math.log10(max(amplitude / math.sqrt(2), 1e-6)), 1)


class Client:
    def __init__(self, options, socket):
        self.options, self.socket = options, socket
        self.connection, self.received, self.offers = RTCPeerConnection(), [], 0
        self.tasks = set()
        self.connection.on("track", self.take_track)

    def take_track(self, track):
        received = Received(track, self.options.listen)
        self.received.append(received)
        self.tasks.add(asyncio.ensure_future(received.read()))

    async def send(self, kind, data):
        await self.socket.send(json.dumps({"type": kind, "data": data}))

    async def publish(self):
        options = self.options
        if options.tone:
            self.connection.addTrack(Tone(options.tone))
        if options.colour:
            self.connection.addTrack(Colour(options.colour))
        self.prefer_h264()
        await self.connection.setLocalDescription(await self.connection.createOffer())
        await self.send("offer", self.connection.localDescription.sdp)

    def prefer_h264(self):
        codecs = RTCRtpSender.getCapabilities("video").codecs
        wanted = [c for c in codecs if c.mimeType in ("video/H264", "video/rtx")]
        for transceiver in self.connection.getTransceivers():
            if transceiver.kind == "video":
                transceiver.setCodecPreferences(wanted)

    async def handle(self, kind, data):
        if kind == "clientid":
            emit("joined", client_id=data)
            if self.options.tone or self.options.colour:
                await self.publish()
        elif kind == "answer":
            await self.connection.setRemoteDescription(RTCSessionDescription(data["sdp"], "answer"))
        elif kind == "offer":
            self.offers += 1
            await self.take_offer(data["sdp"])
        elif kind == "candidate":
            await self.take_candidate(data)
        elif kind == "tracks_added":
            await self.send("tracks_added", {track: "media" for track in data})
        elif kind == "tracks_available" and self.options.subscribe:
            wanted = [{"client_id": t["client_id"], "track_id": t["track_id"]} for t in data.values()]
            await self.send("subscribe_tracks", wanted)
        elif kind != "track_stats":
            emit("message", type=kind, data=data)

    async def take_offer(self, sdp):
        try:
            await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        except ValueError as error:
            emit("refused", error=str(error), sdp=sdp)
            return
        await self.connection.setLocalDescription(await self.connection.createAnswer())
        await self.send("answer", self.connection.localDescription.sdp)

    async def take_candidate(self, data):
        line = (data or {}).get("candidate") or ""
        if not line:
            return
        candidate = candidate_from_sdp(line.split(":", 1)[1])
        candidate.sdpMid, candidate.sdpMLineIndex = data.get("sdpMid"), data.get("sdpMLineIndex")
        await self.connection.addIceCandidate(candidate)

    async def report(self):
        while True:
            await asyncio.sleep(0.5)
            tracks = [received.report() for received in self.received]
            emit("stats", state=self.connection.connectionState, offers=self.offers, tracks=tracks)

    async def run(self):
        reporting = asyncio.ensure_future(self.report())
        try:
            async with asyncio.timeout(self.options.seconds):
                async for text in self.socket:
                    message = json.loads(text)
                    await self.handle(message["type"], message.get("data"))
        except TimeoutError:
            await self.send("leave", None)
        reporting.cancel()
        await self.connection.close()
        emit("end")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="ws://host:port/ws")
    parser.add_argument("--room", default="default")
    parser.add_argument("--name", default="aiortc")
    parser.add_argument("--mode", default="sfu", choices=["sfu", "mcu", "auto"])
    parser.add_argument("--tone", type=float, help="publish a sine of this frequency")
    parser.add_argument("--colour", type=lambda s: [int(v) for v in s.split(",")], help="publish a picture of r,g,b")
    parser.add_argument("--listen", type=float, nargs="*", default=[], help="frequencies whose level is reported")
    parser.add_argument("--no-subscribe", dest="subscribe", action="store_false")
    parser.add_argument("--seconds", type=float, default=30, help="stays so long")
    return parser.parse_args()


async def main():
    options = parse()
    query = {"room_id": options.room, "name": options.name, "mode": options.mode}
    if not (options.tone or options.colour):
        query["publish"] = "0"
    async with websockets.connect(f"{options.url}?{urlencode(query)}", max_size=None) as socket:
        await Client(options, socket).run()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
