//! Why an uploaded file is refused at first sight, in sentences for the person who uploaded it.

use std::time::Duration;

use thiserror::Error;

use crate::kind::ErrorKind;

/// A file that [`crate::probe`] does not let through, or a failure to look.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// No bytes.
    #[error("The file is empty. Check that the recording was saved, and upload it again.")]
    Empty,
    /// Text, a picture, sound alone, a playlist, or bytes of no known kind.
    #[error("This is not a video: {0}. Upload a film file such as MP4, MOV, MKV, WebM or AVI.")]
    NotAVideo(String),
    /// A container that is cut short or broken.
    #[error(
        "The video is damaged or was cut short: {0}. If the original plays to its end, copy or export it again and upload that."
    )]
    Damaged(String),
    /// A real video of a kind that we do not take.
    #[error("This kind of video is not supported: {0}. Convert it, for example to MP4 with H.264, and upload that.")]
    Unsupported(String),
    /// Longer than the limit.
    #[error("The video lasts {} and the longest this node takes is {}. Cut it into parts.", hours(.actual), hours(.limit))]
    TooLong {
        /// Its length.
        actual: Duration,
        /// [`crate::Limits::max_duration`].
        limit: Duration,
    },
    /// More pixels than the limit.
    #[error("The picture is {width} x {height} and the largest this node takes has {limit} pixels. Export it smaller.")]
    TooLarge {
        /// Stored width.
        width: u32,
        /// Stored height.
        height: u32,
        /// [`crate::Limits::max_pixels`].
        limit: u64,
    },
    /// ffprobe did not answer in time.
    #[error("The file could not be examined within {} seconds. Try again later.", .0.as_secs())]
    TimedOut(Duration),
    /// ffprobe could not be started, or the file not be read.
    #[error("The node could not examine the file ({what}). Tell its operator, and try another node.")]
    Internal {
        /// What was tried.
        what: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// ffprobe answered something that is not its documented JSON.
    #[error("The node could not examine the file (ffprobe's answer was not understood). Tell its operator.")]
    BadAnswer(#[from] serde_json::Error),
}

impl ProbeError {
    /// The problem type for the upload's status.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ProbeError::Empty | ProbeError::NotAVideo(_) => ErrorKind::NotAVideo,
            ProbeError::Damaged(_) => ErrorKind::VideoDamaged,
            ProbeError::Unsupported(_) | ProbeError::TooLong { .. } | ProbeError::TooLarge { .. } => {
                ErrorKind::VideoUnsupported
            }
            ProbeError::TimedOut(_) | ProbeError::Internal { .. } | ProbeError::BadAnswer(_) => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(what: &str, source: std::io::Error) -> Self {
        ProbeError::Internal { what: what.to_owned(), source }
    }
}

fn hours(time: &Duration) -> String {
    let minutes = time.as_secs().div_ceil(60);
    format!("{} h {} min", minutes / 60, minutes % 60)
}

/// Reads the reason out of what ffprobe wrote and how the file begins. `head` is the first bytes of the file.
pub(crate) fn from_ffprobe(stderr: &str, head: &[u8]) -> ProbeError {
    if let Some(format) = refused_format(stderr) {
        return by_format(format);
    }
    if is_container(head) {
        return ProbeError::Damaged(damage(stderr).unwrap_or("it cannot be read").to_owned());
    }
    ProbeError::NotAVideo("its contents are no film format that is known here".to_owned())
}

/// FFmpeg's messages that mean "the end is missing" in any container.
const DAMAGE: &[(&str, &str)] = &[
    ("moov atom not found", "its table of contents, which stands at the end, is missing"),
    ("partial file", "the end of the file is missing"),
    ("File ended prematurely", "the end of the file is missing"),
    ("Truncating packet of size", "the end of the file is missing"),
];

/// A sentence for the first sign of damage in FFmpeg's messages.
pub(crate) fn damage(stderr: &str) -> Option<&'static str> {
    DAMAGE.iter().find(|(sign, _)| stderr.contains(sign)).map(|(_, means)| *means)
}

/// `[hls @ 0x5..] Format not on whitelist '...'`: the name in brackets.
fn refused_format(stderr: &str) -> Option<&str> {
    let line = stderr.lines().find(|l| l.contains("Format not on whitelist"))?;
    line.strip_prefix('[')?.split([' ', ']']).next()
}

/// Containers and raw streams that hold video, but that we do not open.
const VIDEO_FORMATS: &[&str] = &[
    "rm",
    "wtv",
    "nut",
    "dv",
    "mxf",
    "ivf",
    "h264",
    "hevc",
    "m4v",
    "mpegvideo",
    "mjpeg",
    "yuv4mpegpipe",
    "vc1",
    "dirac",
    "obu",
    "gxf",
    "nsv",
    "bink",
    "smk",
    "swf",
    "roq",
    "avs",
    "y4m",
    "dvr-ms",
];
/// Lists that name other files. Opening them would let an upload read files of the node.
const LISTS: &[&str] =
    &["hls", "applehttp", "dash", "concat", "concatf", "sdp", "rtsp", "image2", "imf", "webm_dash_manifest"];

fn by_format(format: &str) -> ProbeError {
    if VIDEO_FORMATS.contains(&format) {
        ProbeError::Unsupported(format!("the format {format}"))
    } else if LISTS.iter().any(|l| format.split(',').any(|f| f == *l)) {
        ProbeError::NotAVideo("it is a list that names other files".to_owned())
    } else if format.ends_with("_pipe") || matches!(format, "gif" | "ico" | "apng") {
        ProbeError::NotAVideo("it is a picture".to_owned())
    } else if matches!(format, "tty" | "srt" | "webvtt" | "ass" | "subviewer" | "microdvd") {
        ProbeError::NotAVideo("it is text".to_owned())
    } else {
        ProbeError::NotAVideo(format!("it is of the format {format}, which holds no film"))
    }
}

/// Whether the first bytes are those of a container that we take.
fn is_container(head: &[u8]) -> bool {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let mov = [&b"ftyp"[..], b"moov", b"mdat", b"wide", b"styp", b"pnot"].iter().any(|kind| at(4, kind));
    let transport = head.first() == Some(&0x47) && head.get(188) == Some(&0x47);
    mov || transport
        || (at(0, b"RIFF") && at(8, b"AVI "))
        || [&b"\x1a\x45\xdf\xa3"[..], b"FLV\x01", b"OggS", b"\0\0\x01\xba", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"]
            .iter()
            .any(|magic| at(0, magic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(stderr: &str, head: &[u8]) -> ErrorKind {
        from_ffprobe(stderr, head).kind()
    }

    #[test]
    fn messages_are_told_apart() {
        let refused =
            |format: &str| format!("[{format} @ 0x55] Format not on whitelist 'mov'\nfile:x: Invalid argument");
        assert_eq!(kind(&refused("png_pipe"), b"\x89PNG"), ErrorKind::NotAVideo);
        assert_eq!(kind(&refused("hls"), b"#EXTM3U"), ErrorKind::NotAVideo);
        assert!(from_ffprobe(&refused("hls"), b"").to_string().contains("names other files"));
        assert_eq!(kind(&refused("mxf"), b""), ErrorKind::VideoUnsupported);
        assert_eq!(kind(&refused("mp3"), b"ID3"), ErrorKind::NotAVideo);
        assert_eq!(kind("[mov @ 0x5] moov atom not found", b"\0\0\0\x20ftypisom"), ErrorKind::VideoDamaged);
        assert_eq!(kind("[mov @ 0x5] moov atom not found", b"just some words"), ErrorKind::NotAVideo);
        assert_eq!(kind("Invalid data found", b"\x1a\x45\xdf\xa3"), ErrorKind::VideoDamaged);
        assert_eq!(kind("Invalid data found", b""), ErrorKind::NotAVideo);
    }
}
