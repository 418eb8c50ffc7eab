//! Opus in and out (RFC 6716, RFC 7587): 48 kHz, mono or stereo, floating point.

/// One channel or two.
pub use opus::Channels;
use opus::{Application, Bitrate, Signal};
use talksy_mixer::audio::{FRAME_SAMPLES, SAMPLE_RATE};

/// The longest packet: 120 ms (RFC 6716, section 3.2.5, rule R5).
pub const MAX_SAMPLES: usize = 5760;

/// The largest payload that is looked at; a packet of one frame has at most 1276 bytes, and the path to us about
/// this many.
pub const MAX_PAYLOAD: usize = 1500;

/// Payloads of up to this many bytes hold no sound: the sender has nothing to say (RFC 6716, section 2.1.9).
pub const DTX_PAYLOAD: usize = 2;

/// What libopus encodes at, bit/s.
const MIN_BITRATE: u32 = 6_000;
const MAX_BITRATE: u32 = 510_000;

/// What can go wrong with a codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpusError {
    /// Not an Opus packet, or one of more than 120 ms or [`MAX_PAYLOAD`] bytes.
    #[error("not an Opus packet that RFC 6716 allows")]
    Malformed,
    /// libopus refused what it should take.
    #[error("libopus refused: {0:?}")]
    Codec(opus::ErrorCode),
}

impl From<opus::Error> for OpusError {
    fn from(error: opus::Error) -> Self {
        match error.code() {
            opus::ErrorCode::InvalidPacket => OpusError::Malformed,
            code => OpusError::Codec(code),
        }
    }
}

/// Duration of a packet in samples at 48 kHz, at most [`MAX_SAMPLES`], by its first bytes (RFC 6716, section 3.1).
pub fn packet_samples(payload: &[u8]) -> Result<usize, OpusError> {
    if payload.is_empty() || payload.len() > MAX_PAYLOAD {
        return Err(OpusError::Malformed);
    }
    match opus::packet::get_nb_samples(payload, SAMPLE_RATE) {
        Ok(samples @ 1..=MAX_SAMPLES) => Ok(samples),
        _ => Err(OpusError::Malformed),
    }
}

/// Whether a packet has two channels (RFC 6716, section 3.1: the `s` of its first byte).
pub fn is_stereo(payload: &[u8]) -> bool {
    payload.first().is_some_and(|toc| toc & 0x04 != 0)
}

/// One source's decoder. RFC 6716 lets a decoder of one channel or two take any stream: one of one makes mono of stereo.
pub struct OpusDecoder {
    decoder: opus::Decoder,
    channels: usize,
    /// [`MAX_SAMPLES`] of each channel, in turns.
    pcm: Box<[f32]>,
}

impl OpusDecoder {
    /// Louder samples are cut: libopus may overshoot full scale, by nothing like this.
    const LOUDEST: f32 = 4.0;

    /// A decoder of one channel that has heard nothing.
    ///
    /// # Errors
    /// libopus refuses.
    pub fn new() -> Result<Self, OpusError> {
        Self::with_channels(Channels::Mono)
    }

    /// One whose sound has one channel or two, left and right in turns.
    ///
    /// # Errors
    /// libopus refuses.
    pub fn with_channels(channels: Channels) -> Result<Self, OpusError> {
        Ok(OpusDecoder {
            decoder: opus::Decoder::new(SAMPLE_RATE, channels)?,
            channels: channels as usize,
            pcm: vec![0.0; MAX_SAMPLES * channels as usize].into(),
        })
    }

    /// The sound of a packet: finite samples, [`packet_samples`] of them for each channel.
    ///
    /// # Errors
    /// Not a packet that RFC 6716 allows.
    pub fn decode(&mut self, payload: &[u8]) -> Result<&[f32], OpusError> {
        packet_samples(payload)?;
        let samples = self
            .decoder
            .decode_float(payload, &mut self.pcm[..], false)?;
        Ok(self.cleaned(samples))
    }

    /// Up to `samples` of sound in place of a lost packet, made up from what came before.
    ///
    /// # Errors
    /// libopus refuses.
    pub fn conceal(&mut self, samples: usize) -> Result<&[f32], OpusError> {
        let room = whole_steps(samples) * self.channels;
        let made = self
            .decoder
            .decode_float(&[], &mut self.pcm[..room], false)?;
        Ok(self.cleaned(made))
    }

    /// The sound of a lost packet of `samples`, from the copy that its successor may carry (in-band FEC, RFC 6716,
    /// section 2.1.7); made up where it carries none.
    ///
    /// # Errors
    /// The successor is not a packet that RFC 6716 allows.
    pub fn recover(&mut self, successor: &[u8], samples: usize) -> Result<&[f32], OpusError> {
        packet_samples(successor)?;
        let room = whole_steps(samples) * self.channels;
        let made = self
            .decoder
            .decode_float(successor, &mut self.pcm[..room], true)?;
        Ok(self.cleaned(made))
    }

    /// Forgets all it heard.
    ///
    /// # Errors
    /// libopus refuses.
    pub fn reset(&mut self) -> Result<(), OpusError> {
        Ok(self.decoder.reset_state()?)
    }

    fn cleaned(&mut self, samples: usize) -> &[f32] {
        let pcm = &mut self.pcm[..samples.min(MAX_SAMPLES) * self.channels];
        for x in pcm.iter_mut() {
            *x = if x.is_finite() {
                x.clamp(-Self::LOUDEST, Self::LOUDEST)
            } else {
                0.0
            };
        }
        pcm
    }
}

/// libopus conceals whole steps of 2.5 ms.
fn whole_steps(samples: usize) -> usize {
    const STEP: usize = 120;
    (samples.clamp(STEP, MAX_SAMPLES) / STEP) * STEP
}

/// From so many bit/s of one channel on, voices sound well without SILK.
const WITHOUT_SILK: u32 = 28_000;
/// At most, for who talks at lower bit rates.
const TALKERS_COMPLEXITY: u8 = 3;

/// Which of Opus's two coders (RFC 6716, section 2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coder {
    /// What libopus finds best for voices at the bit rate: mostly SILK, with CELT for what it leaves out.
    #[default]
    Voice,
    /// CELT alone, at 28 kbit/s or more: less work. It has no in-band FEC.
    Celt,
}

/// How to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpusSettings {
    /// Bit/s of one channel.
    pub bitrate: u32,
    /// Bit/s of two channels together.
    pub stereo_bitrate: u32,
    /// 0 to 10.
    pub complexity: u8,
    /// In-band FEC, of one channel only: each packet may carry a coarse copy of the one before.
    pub fec: bool,
    /// The loss that FEC is made for, in percent.
    pub expected_loss: u8,
    /// In silence nothing is sent but a sign of life now and then (RFC 7587, section 3.1.3); else a packet every 20 ms.
    /// The encoder's own detector stays off: the mix has a gate, and knows better.
    pub dtx: bool,
    /// Of one channel; two are CELT's always.
    pub coder: Coder,
}

impl OpusSettings {
    /// Bit/s for so many channels.
    pub fn bitrate_of(&self, channels: Channels) -> u32 {
        match channels {
            Channels::Mono => self.bitrate,
            Channels::Stereo => self.stereo_bitrate,
        }
    }

    /// For the ears of somebody who talks at the same time, over a link that loses nothing: less work, at low bit
    /// rates four fifths. What that costs in quality is behind their own voice.
    pub fn for_a_talker(self) -> Self {
        if self.bitrate >= WITHOUT_SILK {
            return OpusSettings {
                coder: Coder::Celt,
                ..self
            };
        }
        OpusSettings {
            complexity: self.complexity.min(TALKERS_COMPLEXITY),
            ..self
        }
    }
}

impl Default for OpusSettings {
    fn default() -> Self {
        OpusSettings {
            bitrate: 32_000,
            stereo_bitrate: 64_000,
            complexity: 6,
            fec: true,
            expected_loss: 5,
            dtx: true,
            coder: Coder::Voice,
        }
    }
}

/// The encoder of one mix at one bitrate.
pub struct OpusEncoder {
    encoder: opus::Encoder,
    channels: Channels,
    settings: Option<OpusSettings>,
    independent: bool,
}

impl OpusEncoder {
    /// An encoder of one channel that has heard nothing.
    ///
    /// # Errors
    /// libopus refuses.
    pub fn new(settings: OpusSettings) -> Result<Self, OpusError> {
        Self::with_channels(settings, Channels::Mono)
    }

    /// One of one channel or two.
    ///
    /// # Errors
    /// libopus refuses.
    pub fn with_channels(settings: OpusSettings, channels: Channels) -> Result<Self, OpusError> {
        // In-band FEC is of SILK, which makes one channel of two in the course of seconds: who takes two gets CELT.
        let application = match channels {
            Channels::Mono => Application::Voip,
            Channels::Stereo => Application::Audio,
        };
        let mut encoder = OpusEncoder {
            encoder: opus::Encoder::new(SAMPLE_RATE, channels, application)?,
            channels,
            settings: None,
            independent: false,
        };
        encoder.configure(settings)?;
        Ok(encoder)
    }

    /// How many channels it takes.
    pub fn channels(&self) -> Channels {
        self.channels
    }

    /// Encodes in another way from the next frame on.
    ///
    /// # Errors
    /// libopus refuses.
    pub fn configure(&mut self, settings: OpusSettings) -> Result<(), OpusError> {
        if self.settings == Some(settings) {
            return Ok(());
        }
        let encoder = &mut self.encoder;
        encoder.set_complexity(settings.complexity.min(10).into())?;
        let may_have_fec = self.channels == Channels::Mono && settings.coder == Coder::Voice;
        encoder.set_inband_fec(settings.fec && may_have_fec)?;
        // Without FEC, libopus encodes music with CELT from some 23 kbit/s on.
        encoder.set_signal(match settings.coder {
            Coder::Voice => Signal::Auto,
            Coder::Celt => Signal::Music,
        })?;
        encoder.set_packet_loss_perc(settings.expected_loss.min(100).into())?;
        encoder.set_dtx(false)?;
        let bits = settings
            .bitrate_of(self.channels)
            .clamp(MIN_BITRATE, MAX_BITRATE);
        encoder.set_bitrate(Bitrate::Bits(bits as i32))?;
        self.settings = Some(settings);
        Ok(())
    }

    /// Encodes 20 ms (of two channels: left and right in turns) and appends the packet to `out`; returns its bytes. An
    /// `independent` frame can be decoded well without its predecessors, at the cost of some quality.
    ///
    /// # Errors
    /// libopus refuses.
    pub fn encode(
        &mut self,
        frame: &[f32],
        independent: bool,
        out: &mut Vec<u8>,
    ) -> Result<usize, OpusError> {
        debug_assert_eq!(frame.len(), FRAME_SAMPLES * self.channels as usize);
        if independent != self.independent {
            self.encoder.set_prediction_disabled(independent)?;
            self.independent = independent;
        }
        let begin = out.len();
        out.resize(begin + MAX_PAYLOAD, 0);
        let encoded = self.encoder.encode_float(frame, &mut out[begin..]);
        out.truncate(begin + encoded.as_ref().map_or(0, |bytes| *bytes));
        Ok(encoded?)
    }

    /// Forgets all it heard.
    ///
    /// # Errors
    /// libopus refuses.
    pub fn reset(&mut self) -> Result<(), OpusError> {
        Ok(self.encoder.reset_state()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talksy_mixer::audio::SILENCE;
    use talksy_mixer::audio::level::Dbfs;
    use talksy_mixer::audio::voice::{Seeded, SyntheticVoice};

    #[test]
    fn talkers_are_encoded_for_with_less_work_but_never_with_more() {
        let default = OpusSettings::default();
        assert_eq!(default.for_a_talker().coder, Coder::Celt);
        let low = OpusSettings {
            bitrate: 20_000,
            ..default
        };
        let talker = low.for_a_talker();
        assert_eq!((talker.coder, talker.complexity), (Coder::Voice, 3));
        let simple = OpusSettings {
            complexity: 1,
            ..low
        };
        assert_eq!(simple.for_a_talker(), simple);
    }

    /// The coder that a packet names (RFC 6716, section 3.1).
    fn is_celt(packet: &[u8]) -> bool {
        packet[0] >> 3 >= 16
    }

    #[test]
    fn a_talker_gets_celt_and_silk_again_when_packets_are_lost() {
        let mut voice = SyntheticVoice::new(1, 120.0, -20.0);
        let whole = OpusSettings::default();
        let mut encoder = OpusEncoder::new(whole).unwrap();
        let mut decoder = OpusDecoder::new().unwrap();
        let mut frame = SILENCE;
        let mut coded_by_celt = |settings: OpusSettings| -> usize {
            encoder.configure(settings).unwrap();
            let is_celt = |_| {
                let mut packet = Vec::new();
                voice.next_frame(&mut frame);
                encoder.encode(&frame, false, &mut packet).unwrap();
                decoder.decode(&packet).unwrap();
                usize::from(is_celt(&packet))
            };
            (0..100).map(is_celt).sum()
        };
        assert_eq!(coded_by_celt(whole), 0);
        // A change of coders takes a frame in which both are.
        assert!(coded_by_celt(whole.for_a_talker()) >= 98);
        assert!(coded_by_celt(whole) <= 2);
        let least = OpusSettings {
            bitrate: WITHOUT_SILK,
            ..whole
        };
        assert!(coded_by_celt(least.for_a_talker()) >= 98);
    }

    fn packets(count: usize, settings: OpusSettings) -> Vec<Vec<u8>> {
        let mut voice = SyntheticVoice::new(1, 120.0, -20.0);
        let mut encoder = OpusEncoder::new(settings).unwrap();
        let mut frame = SILENCE;
        let encode = |_| {
            let mut packet = Vec::new();
            voice.next_frame(&mut frame);
            encoder.encode(&frame, false, &mut packet).unwrap();
            packet
        };
        (0..count).map(encode).collect()
    }

    #[test]
    fn what_is_encoded_comes_back_at_its_level_and_near_its_bitrate() {
        for bitrate in [20_000, 32_000] {
            let packets = packets(
                250,
                OpusSettings {
                    bitrate,
                    ..Default::default()
                },
            );
            let bits: usize = packets.iter().map(|p| p.len() * 8).sum();
            assert!(
                (bits as f32 / 5.0 / bitrate as f32 - 1.0).abs() < 0.25,
                "{bits}"
            );
            let mut decoder = OpusDecoder::new().unwrap();
            let mut sound = Vec::new();
            for packet in &packets {
                assert_eq!(packet_samples(packet), Ok(960));
                sound.extend_from_slice(decoder.decode(packet).unwrap());
            }
            assert!((Dbfs::of(&sound).0 - -22.0).abs() < 4.0);
        }
    }

    #[test]
    fn a_lost_packet_is_recovered_better_from_its_successor_than_made_up() {
        let settings = OpusSettings {
            expected_loss: 20,
            ..Default::default()
        };
        let packets = packets(300, settings);
        let mut reference = OpusDecoder::new().unwrap();
        let whole: Vec<Vec<f32>> = packets
            .iter()
            .map(|p| reference.decode(p).unwrap().to_vec())
            .collect();
        let error_with = |fec: bool| -> f32 {
            let mut decoder = OpusDecoder::new().unwrap();
            let mut error = 0.0;
            for (n, packet) in packets.iter().enumerate() {
                let lost = n % 7 == 6 && n + 1 < packets.len();
                let sound = match (lost, fec) {
                    (false, _) => decoder.decode(packet),
                    (true, true) => decoder.recover(&packets[n + 1], 960),
                    (true, false) => decoder.conceal(960),
                };
                let difference = sound
                    .unwrap()
                    .iter()
                    .zip(&whole[n])
                    .map(|(a, b)| (a - b).powi(2));
                error += if lost { difference.sum() } else { 0.0 };
            }
            error
        };
        let (recovered, made_up) = (error_with(true), error_with(false));
        assert!(recovered < made_up * 0.6, "{recovered} against {made_up}");
    }

    #[test]
    fn garbage_is_refused_or_decoded_but_never_more_than_120_ms_or_not_finite() {
        let mut decoder = OpusDecoder::new().unwrap();
        let mut random = Seeded::new(7);
        for n in 0..2000 {
            let len = (random.unit() * 80.0) as usize;
            let payload: Vec<u8> = (0..len).map(|_| (random.unit() * 256.0) as u8).collect();
            if let Ok(sound) = decoder.decode(&payload) {
                assert!(sound.len() <= MAX_SAMPLES);
                assert!(sound.iter().all(|x| x.abs() <= 4.0), "packet {n}");
            }
        }
        // 3 × 60 ms, 49 frames, no bytes, too many bytes.
        assert_eq!(packet_samples(&[0b0001_1011, 3]), Err(OpusError::Malformed));
        assert_eq!(
            packet_samples(&[0b1110_0011, 49]),
            Err(OpusError::Malformed)
        );
        assert_eq!(packet_samples(&[]), Err(OpusError::Malformed));
        assert_eq!(
            packet_samples(&[0; MAX_PAYLOAD + 1]),
            Err(OpusError::Malformed)
        );
        assert!(decoder.decode(&[]).is_err());
    }

    #[test]
    fn concealing_fills_any_length_that_is_asked_for() {
        let mut decoder = OpusDecoder::new().unwrap();
        for samples in [0, 1, 120, 480, 960, 1000, 5760, 100_000] {
            let made = decoder.conceal(samples).unwrap().len();
            assert_eq!(made, whole_steps(samples));
        }
    }
}
