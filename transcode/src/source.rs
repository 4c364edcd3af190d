//! What a probed file holds.

use std::fmt;
use std::time::Duration;

/// A positive fraction, such as a frame rate of 30000/1001 pictures per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rational {
    /// Numerator, above 0.
    pub num: u32,
    /// Denominator, above 0.
    pub den: u32,
}

impl Rational {
    /// `None` when either part is 0.
    pub fn new(num: u32, den: u32) -> Option<Self> {
        (num > 0 && den > 0).then_some(Self { num, den })
    }

    /// Reads FFmpeg's `num/den` or `num:den`; `None` for `0/0`, `0:1` and anything else that is no positive fraction.
    pub fn parse(text: &str) -> Option<Self> {
        let (num, den) = text.split_once(['/', ':'])?;
        Self::new(num.parse().ok()?, den.parse().ok()?)
    }

    /// The nearest double.
    pub fn value(self) -> f64 {
        f64::from(self.num) / f64::from(self.den)
    }
}

impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.num, self.den)
    }
}

/// A file that can be transcoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// FFmpeg's name of the container, for example `mov,mp4,m4a,3gp,3g2,mj2`.
    pub container: String,
    /// Length of the whole file.
    pub duration: Duration,
    /// The video stream that is shown.
    pub video: VideoStream,
    /// The audio streams: the one that is heard unless a viewer chooses first, then in the order of the file.
    pub audio: Vec<AudioStream>,
    /// Subtitles that are text, in the order of the file.
    pub subtitles: Vec<SubtitleStream>,
}

/// The chosen video stream.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoStream {
    /// Index of the stream in the file.
    pub index: u32,
    /// FFmpeg's codec name.
    pub codec: String,
    /// Whether it is one picture, the cover of a piece of sound.
    pub still: bool,
    /// Stored width in pixels, before rotation.
    pub width: u32,
    /// Stored height in pixels, before rotation.
    pub height: u32,
    /// Clockwise turn for display in degrees: 0, 90, 180 or 270.
    pub rotation: u32,
    /// Pictures per second; `None` where the file does not say.
    pub fps: Option<Rational>,
    /// FFmpeg's pixel format name, for example `yuv444p`.
    pub pix_fmt: String,
    /// Set where the picture needs tone mapping for screens of standard range.
    pub hdr: Option<Hdr>,
    /// Width of a stored pixel over its height.
    pub sar: Rational,
    /// Whether the file says that its pictures are interlaced.
    pub interlaced: bool,
    /// The stream's own length, where the file tells it.
    pub duration: Option<Duration>,
}

impl VideoStream {
    /// Width and height as shown: square pixels, turned. The height is kept and the width stretched, as players do.
    pub fn display_size(&self) -> (u32, u32) {
        let stretched = f64::from(self.width) * self.sar.value();
        let width = (stretched.round() as u32).max(1);
        if self.rotation % 180 == 90 { (self.height, width) } else { (width, self.height) }
    }
}

/// Transfer functions of pictures with a high dynamic range (ITU-R BT.2100).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hdr {
    /// Perceptual quantizer, SMPTE ST 2084: HDR10 and Dolby Vision.
    Pq,
    /// Hybrid log-gamma, ARIB STD-B67.
    Hlg,
}

/// An audio stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioStream {
    /// Index of the stream in the file.
    pub index: u32,
    /// FFmpeg's codec name.
    pub codec: String,
    /// Number of channels.
    pub channels: u32,
    /// Samples per second.
    pub sample_rate: u32,
    /// BCP 47 tag, where the file names a language.
    pub language: Option<String>,
    /// Whether people talk about the film rather than in it.
    pub commentary: bool,
}

/// A subtitle stream of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubtitleStream {
    /// Index of the stream in the file.
    pub index: u32,
    /// FFmpeg's codec name.
    pub codec: String,
    /// BCP 47 tag, where the file names a language.
    pub language: Option<String>,
    /// Whether it is shown also to those who asked for no subtitles.
    pub forced: bool,
    /// Whether it tells those who cannot hear about noises, too.
    pub hearing_impaired: bool,
}
