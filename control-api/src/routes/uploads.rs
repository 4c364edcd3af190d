//! Uploads on the delivery listener: the file comes in, its progress goes out.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use chunkstore_block::PublicationId;
use futures::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{ApiPath, Shared};
use crate::backend::NodeBackend;
use crate::problem::{ErrorKind, Problem};
use crate::tokens::{Grant, Token, UploadGrant};
use crate::types::UploadStatus;

/// How long an uploader may be silent before the upload counts as broken. A guess: a phone that changes networks takes 30 s.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// The least time between two events of a stream: four a second (`docs/api.md` §4).
const EVENT_SPACING: Duration = Duration::from_millis(250);

pub(super) async fn receive<B: NodeBackend>(
    State(app): State<Shared<B>>,
    ApiPath(upload): ApiPath<String>,
    request: Request,
) -> Result<Response, Problem> {
    let publication = upload_id(&upload)?;
    let token = bearer(request.headers())?;
    let grant = grant_for(app.tokens.lookup(&token, app.clock.now())?.issued.grant(), Some(&upload))?;
    check_length(request.headers(), grant)?;
    let body = counted(request.into_body(), grant.size).boxed();
    let status = app.backend.receive_upload(publication, body).await?;
    Ok((StatusCode::ACCEPTED, no_store(), Json(status)).into_response())
}

pub(super) async fn status<B: NodeBackend>(
    State(app): State<Shared<B>>,
    ApiPath(upload): ApiPath<String>,
) -> Result<Response, Problem> {
    let status = watch_upload(&app, &upload)?.borrow().clone();
    Ok((no_store(), Json(status)).into_response())
}

pub(super) async fn events<B: NodeBackend>(
    State(app): State<Shared<B>>,
    ApiPath(upload): ApiPath<String>,
) -> Result<Response, Problem> {
    let receiver = watch_upload(&app, &upload)?;
    let permit = std::sync::Arc::clone(&app.event_streams).try_acquire_owned().map_err(|_| {
        Problem::new(ErrorKind::Busy, "Too many event streams are open here. Ask for the status instead, or later.")
    })?;
    Ok(Sse::new(status_events(receiver, permit, app.events_end.subscribe()))
        .keep_alive(KeepAlive::default())
        .into_response())
}

fn watch_upload<B: NodeBackend>(app: &Shared<B>, upload: &str) -> Result<watch::Receiver<UploadStatus>, Problem> {
    let publication = upload_id(upload)?;
    app.backend.upload_status(publication).ok_or_else(no_such_upload)
}

fn upload_id(text: &str) -> Result<PublicationId, Problem> {
    text.parse().map_err(|_| no_such_upload())
}

fn no_such_upload() -> Problem {
    Problem::new(ErrorKind::NotFound, "This node knows no upload with this id. Ask the platform which node has it.")
}

pub(super) fn no_store() -> [(header::HeaderName, HeaderValue); 1] {
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))]
}

/// The token of `Authorization: Bearer`.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Token, Problem> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, token) = value.split_once(' ').unwrap_or_default();
    let token = Some(token.trim()).filter(|_| scheme.eq_ignore_ascii_case("Bearer"));
    token.and_then(|token| Token::parse(token).ok()).ok_or_else(|| {
        Problem::new(ErrorKind::TokenUnknown, "Send the upload token as Authorization: Bearer <43 characters>.")
    })
}

/// The upload that a token is for; refuses another one than `upload`, if that is named.
pub(super) fn grant_for(grant: &Grant, upload: Option<&str>) -> Result<UploadGrant, Problem> {
    let named = upload.map(upload_id).transpose()?;
    match grant {
        Grant::Upload(grant) if named.is_none_or(|named| named == grant.reference.publication) => Ok(*grant),
        Grant::Upload(_) | Grant::Playback(_) => Err(Problem::new(
            ErrorKind::WrongContent,
            "The token is for something else than this upload. Ask the platform for the upload's own token.",
        )),
    }
}

/// Refuses a `Content-Length` that cannot come to a good end, before a byte is written.
fn check_length(headers: &HeaderMap, grant: UploadGrant) -> Result<(), Problem> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > grant.size => Err(too_large(grant.size)),
        Some(length) if length < grant.size => Err(too_short(length, grant.size)),
        Some(0) => Err(too_short(0, 0)),
        Some(_) | None => Ok(()),
    }
}

fn too_large(size: u64) -> Problem {
    let detail = format!("The platform announced {size} bytes and more came. Start again with the right size.");
    Problem::new(ErrorKind::UploadTooLarge, detail)
}

fn too_short(received: u64, size: u64) -> Problem {
    match received {
        0 => Problem::new(ErrorKind::UploadEmpty, "The body has no bytes. Send the file as the body."),
        _ => {
            let detail = format!("The platform announced {size} bytes and {received} came. Send the file again.");
            Problem::new(ErrorKind::UploadIncomplete, detail)
        }
    }
}

/// The body as exactly `size` bytes, or an error at the place where it goes wrong.
fn counted(body: Body, size: u64) -> impl Stream<Item = Result<Bytes, Problem>> + Send + 'static {
    let start = Some(Counted { body: body.into_data_stream(), received: 0, size });
    stream::unfold(start, |state| async { state?.next().await })
}

struct Counted {
    body: BodyDataStream,
    received: u64,
    size: u64,
}

impl Counted {
    async fn next(mut self) -> Option<(Result<Bytes, Problem>, Option<Self>)> {
        let chunk = tokio::time::timeout(SILENCE, self.body.next()).await;
        match chunk {
            Ok(Some(Ok(bytes))) => {
                self.received = self.received.saturating_add(bytes.len() as u64);
                match self.received > self.size {
                    true => Some((Err(too_large(self.size)), None)),
                    false => Some((Ok(bytes), Some(self))),
                }
            }
            Ok(None) if self.received == self.size && self.size > 0 => None,
            Ok(None) => Some((Err(too_short(self.received, self.size)), None)),
            Ok(Some(Err(_))) | Err(_) => {
                let detail = format!(
                    "The connection broke after {} of {} bytes. Send the file again.",
                    self.received, self.size
                );
                Some((Err(Problem::new(ErrorKind::UploadIncomplete, detail)), None))
            }
        }
    }
}

/// The status at once, then at each change, at most four a second; ends after a final phase, and when the node stops.
fn status_events(
    receiver: watch::Receiver<UploadStatus>,
    permit: OwnedSemaphorePermit,
    mut end: watch::Receiver<bool>,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let events = stream::unfold(Some((receiver, permit, true)), |state| async {
        let (mut receiver, permit, first) = state?;
        if !first {
            tokio::time::sleep(EVENT_SPACING).await;
            receiver.changed().await.ok()?;
        }
        let status = receiver.borrow_and_update().clone();
        let event = Event::default().event("status").json_data(&status).ok()?;
        let next = (!status.phase.is_final()).then_some((receiver, permit, false));
        Some((Ok(event), next))
    });
    // A node that is gone altogether ends the streams, too.
    events.take_until(async move { end.wait_for(|end| *end).await.map(drop) })
}
