//! Problem details (RFC 9457): the one shape of every refusal, on the wire and in our own code.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// Media type of a problem (RFC 9457 §3).
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// What stands before the error's name in `type`.
const TYPE_PREFIX: &str = "urn:imira:error:";

/// Writes the enum and its three columns from one table, so that a name cannot lack a status or a title.
macro_rules! error_kinds {
    ($($(#[$doc:meta])* $kind:ident, $name:literal, $status:literal, $title:literal;)+) => {
        /// Every error name of `docs/api.md`. The names are stable; statuses and titles are in [`ErrorKind::status`] and
        /// [`ErrorKind::title`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorKind {
            $($(#[$doc])* $kind,)+
            /// A name that this version does not know: only ever read from a newer peer, never sent by us.
            Other,
        }

        impl ErrorKind {
            /// Every kind that this version may send.
            pub const ALL: &[ErrorKind] = &[$(ErrorKind::$kind,)+];

            /// The stable name, as in `docs/api.md`.
            pub fn name(self) -> &'static str {
                match self {
                    $(ErrorKind::$kind => $name,)+
                    ErrorKind::Other => "other",
                }
            }

            /// The HTTP status that goes with the name.
            pub fn status(self) -> u16 {
                match self {
                    $(ErrorKind::$kind => $status,)+
                    ErrorKind::Other => 500,
                }
            }

            /// A short text for people, the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self {
                    $(ErrorKind::$kind => $title,)+
                    ErrorKind::Other => "An error that this version does not know",
                }
            }
        }
    };
}

error_kinds! {
    /// A request that is not in the form of `docs/api.md` §1.
    MalformedRequest, "malformed-request", 400, "The request is not in the form that the interface describes";
    /// The node does not pin the platform key named in the request.
    PlatformNotPinned, "platform-not-pinned", 403, "This node does not serve that platform";
    /// The signature does not fit the pinned key.
    BadSignature, "bad-signature", 401, "The signature is not the platform's";
    /// The request is for another network.
    WrongNetwork, "wrong-network", 403, "The request is for another network";
    /// The request is for another node.
    WrongAudience, "wrong-audience", 403, "The request is for another node";
    /// `exp` has passed.
    RequestExpired, "request-expired", 401, "The request has expired";
    /// `iat` lies ahead of the node's clock.
    RequestFromTheFuture, "request-from-the-future", 401, "The request was signed in the future";
    /// `exp - iat` is more than 30 s.
    LifetimeTooLong, "lifetime-too-long", 400, "The request lives too long";
    /// The request is older than the node's memory of nonces.
    RequestBeforeStart, "request-before-start", 409, "The request is older than this node's start";
    /// The nonce was seen before.
    RequestReplayed, "request-replayed", 409, "The request was used before";
    /// The user's key is not an RSA key of 2,048 to 4,096 bits.
    BadViewerKey, "bad-viewer-key", 400, "The user's key cannot be used";
    /// The upload authority does not fit.
    BadAuthority, "bad-authority", 403, "The upload authority does not allow this";
    /// The number of a deletion order is not one.
    BadSequence, "bad-sequence", 400, "The order has no valid sequence number";
    /// What was asked for has been deleted.
    Deleted, "deleted", 410, "This was deleted";
    /// The file is larger than the node or the request allows.
    UploadTooLarge, "upload-too-large", 413, "The upload is too large";
    /// The file has no bytes.
    UploadEmpty, "upload-empty", 400, "The upload is empty";
    /// The file ended too early.
    UploadIncomplete, "upload-incomplete", 400, "The upload ended too early";
    /// The upload has its file already.
    UploadExists, "upload-exists", 409, "This upload has its file already";
    /// Bytes of the upload come by another request.
    UploadLocked, "upload-locked", 423, "Another request is sending this upload";
    /// The upload goes on elsewhere.
    WrongOffset, "wrong-offset", 409, "The upload does not go on there";
    /// The bytes are not those of the checksum.
    ChecksumMismatch, "checksum-mismatch", 460, "The bytes came damaged";
    /// The upload's time is over.
    UploadExpired, "upload-expired", 410, "The upload was not finished in time";
    /// The uploader ended it.
    UploadTerminated, "upload-terminated", 410, "The upload was ended by its sender";
    /// The upload is joined from parts and takes no bytes.
    FinalUpload, "final-upload", 403, "An upload that is joined from parts takes no bytes";
    /// Another version of tus.
    TusVersion, "tus-version", 412, "This version of tus is not spoken here";
    /// The body is not said to be what it must be.
    UnsupportedMediaType, "unsupported-media-type", 415, "The body is of the wrong media type";
    /// The node's disk or quota is full.
    NoRoom, "no-room", 507, "This node has no room for the upload";
    /// The upload is not processed yet.
    NotReady, "not-ready", 409, "The upload is not processed yet";
    /// The token was never issued, or was forgotten after it expired.
    TokenUnknown, "token-unknown", 401, "The token is not known";
    /// The token was good once.
    TokenExpired, "token-expired", 401, "The token has expired";
    /// The token was good until the platform took it back.
    TokenRevoked, "token-revoked", 401, "The token was taken back";
    /// The token opens another content.
    WrongContent, "wrong-content", 403, "The token opens another content";
    /// The token is confined to other renditions.
    WrongRendition, "wrong-rendition", 403, "The token opens other renditions";
    /// The token is confined to another stretch of the film.
    OutsideLapse, "outside-lapse", 403, "The token opens another time lapse";
    /// No such thing.
    NotFound, "not-found", 404, "Nothing is here";
    /// The path is there, and has no such method.
    MethodNotAllowed, "method-not-allowed", 405, "This cannot be done with this address";
    /// No holder answers now.
    Unavailable, "unavailable", 503, "The content cannot be reached now";
    /// The range starts behind the end of the file.
    RangeNotSatisfiable, "range-not-satisfiable", 416, "The range lies outside the file";
    /// `If-Match` names another entity tag.
    PreconditionFailed, "precondition-failed", 412, "The file is not the one that was meant";
    /// A bounded table is full; ask again.
    Busy, "busy", 503, "This node is busy";
    /// The control listener is asked by a name that it does not know as its own.
    WrongHost, "wrong-host", 421, "This listener does not go by that name";
    /// The node is opening its store.
    Starting, "starting", 503, "This node is starting";
    /// The upload is no video.
    NotAVideo, "not-a-video", 422, "The file is not a video";
    /// The video cannot be decoded to its end.
    VideoDamaged, "video-damaged", 422, "The video is damaged";
    /// A codec or shape that is not supported.
    VideoUnsupported, "video-unsupported", 422, "The video is of a kind that is not supported";
    /// Fewer copies than the network demands.
    NotReplicated, "not-replicated", 503, "The video could not be copied to enough nodes";
    /// The node's own fault.
    Internal, "internal", 500, "The server failed";
    /// Platform: nobody is signed in.
    SignInRequired, "sign-in-required", 401, "Sign in first";
    /// Platform: no node of the network answers.
    NoNode, "no-node", 503, "No node of the network answers";
    /// Platform: the content is in another state.
    WrongState, "wrong-state", 409, "The content is not in the right state";
    /// A member or header of the request is missing or wrong.
    Invalid, "invalid", 400, "The request is not valid";
}

impl ErrorKind {
    /// The `type` of a problem of this kind.
    pub fn urn(self) -> String {
        format!("{TYPE_PREFIX}{}", self.name())
    }

    /// The kind with this name; `None` for a name that this version does not know.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// A refusal: what was refused (`kind`), and in `detail` why and what to do. Never holds a token or a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{title}: {detail}")]
pub struct Problem {
    /// Which error, stable.
    pub kind: ErrorKind,
    /// Short text for people.
    pub title: Cow<'static, str>,
    /// HTTP status.
    pub status: u16,
    /// Why, and what to do.
    pub detail: String,
}

impl Problem {
    /// A problem of this kind with its own status and title.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, title: Cow::Borrowed(kind.title()), status: kind.status(), detail: detail.into() }
    }

    /// An internal failure. The cause goes to the log, for it may name paths or addresses; the caller reads a fixed text.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "internal failure");
        Self::new(ErrorKind::Internal, "The cause is in the server's log. Try again later.")
    }

    /// Reads the body of an error response; `None` when it is no problem document.
    pub fn from_json(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }
}

/// The members on the wire (RFC 9457 §3.1).
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    title: Cow<'a, str>,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    detail: Cow<'a, str>,
}

impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire {
            kind: Cow::Owned(self.kind.urn()),
            title: Cow::Borrowed(&self.title),
            status: self.status,
            detail: Cow::Borrowed(&self.detail),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Problem {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        // Another program's words: they reach logs, terminals and pages.
        let kind = wire.kind.strip_prefix(TYPE_PREFIX).and_then(ErrorKind::from_name);
        let detail = match kind {
            Some(_) => clean(&wire.detail),
            None => clean(&format!("{} ({})", wire.detail, wire.kind)),
        };
        Ok(Self {
            kind: kind.unwrap_or(ErrorKind::Other),
            title: Cow::Owned(clean(&wire.title)),
            status: wire.status,
            detail,
        })
    }
}

/// The longest title or detail that is taken from another program, characters. Ours are far below.
const MAX_TEXT: usize = 2_000;

/// The beginning of a text, with spaces for control characters (escape sequences of terminals, line breaks in logs).
fn clean(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // For whoever counts refusals on their way out.
        response.extensions_mut().insert(self.kind);
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §15.5.2 asks for a challenge with every 401; "Bearer" makes no browser open a dialogue.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_document_is_known() {
        let document = include_str!("../../docs/api.md");
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_name(kind.name()), Some(*kind));
            // These two are ours beside the frozen page (README.md says why).
            if !matches!(kind, ErrorKind::RangeNotSatisfiable | ErrorKind::Busy) {
                assert!(document.contains(&format!("`{}`", kind.name())), "{} is not in docs/api.md", kind.name());
            }
        }
    }

    #[test]
    fn a_problem_survives_the_wire() {
        let problem = Problem::new(ErrorKind::TokenExpired, "Ask for a new one.");
        let json = serde_json::to_string(&problem).unwrap();
        assert!(json.contains(r#""type":"urn:imira:error:token-expired""#));
        assert_eq!(Problem::from_json(json.as_bytes()), Some(problem));
    }

    #[test]
    fn another_programs_words_are_short_and_harmless() {
        let long = "\u{1b}[2J\n".repeat(1_000);
        for kind in ["urn:imira:error:internal".to_owned(), long.clone()] {
            let json = serde_json::json!({"type": kind, "title": long, "status": 500, "detail": long}).to_string();
            let problem = Problem::from_json(json.as_bytes()).unwrap();
            for text in [problem.title.as_ref(), &problem.detail] {
                assert_eq!(text.chars().count(), 2_000);
                assert!(text.starts_with(" [2J ") && !text.contains(char::is_control));
            }
        }
    }

    #[test]
    fn an_unknown_name_keeps_its_text() {
        let json = br#"{"type":"urn:imira:error:brand-new","title":"New","status":418,"detail":"why"}"#;
        let problem = Problem::from_json(json).unwrap();
        assert_eq!((problem.kind, problem.status), (ErrorKind::Other, 418));
        assert!(problem.detail.contains("brand-new"));
        assert_eq!(Problem::from_json(b"<html>"), None);
    }

    #[test]
    fn an_internal_failure_tells_the_caller_nothing_of_its_cause() {
        let problem = Problem::internal(&"cannot open /var/lib/secret");
        let json = serde_json::to_string(&problem).unwrap();
        assert_eq!((problem.kind, problem.status), (ErrorKind::Internal, 500));
        assert!(!json.contains("secret"), "{json}");
    }
}
