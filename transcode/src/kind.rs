//! The error types of an upload's status that a refusal maps to.

use std::fmt;

/// Which problem type of `docs/api.md` §4 an error is reported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The file holds no video.
    NotAVideo,
    /// The file is a video, but cut short or broken.
    VideoDamaged,
    /// The file is a video that this node does not take.
    VideoUnsupported,
    /// The node failed; the file may be fine.
    Internal,
}

impl ErrorKind {
    /// The last part of the problem's URN.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::NotAVideo => "not-a-video",
            ErrorKind::VideoDamaged => "video-damaged",
            ErrorKind::VideoUnsupported => "video-unsupported",
            ErrorKind::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
