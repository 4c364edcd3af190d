//! What a token opens on the delivery listener: index, pages, fragments, blocks, files.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chunkstore_block::{BlockId, ContentKey, Part};
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;

use super::asked::Asked;
use super::leave::{Leave, Opened, is_deleted, slice};
use super::range::Selection;
use super::{ApiPath, Shared, TOKEN_REMAINING};
use crate::backend::{Content, NodeBackend};
use crate::problem::{ErrorKind, Problem};
use crate::tokens::{Grant, Token};
use crate::transfers::RunningTransfer;
use crate::types::{Phase, UploadStatus};

/// Blocks fetched ahead of the one that is being sent, counting the one that waits to get into the channel.
const READ_AHEAD: usize = 2;

/// How long a viewer may take no bytes before the response is cut off. A paused player stops reading for longer, and asks again.
const SEND_STALL: Duration = Duration::from_secs(60);

/// What one transfer may hold in memory: a block that is read, one in the channel, and two that hyper has.
const TRANSFER_BYTES: usize = 4 << 20;

/// An entry of the fragment list as JSON, at most: 64 digits of the id, two numbers, the names.
const FRAGMENT_JSON_BYTES: usize = 128;

pub(super) async fn index<B: NodeBackend>(
    State(app): State<Shared<B>>,
    ApiPath(token): ApiPath<String>,
    asked: Asked,
) -> Result<Response, Problem> {
    let opened = open(&app, &token).await?;
    let bytes = opened.content.index_block().clone();
    let etag = format!("\"{}\"", opened.content.key());
    whole(&opened, &asked, "application/cbor", &etag, bytes)
}

pub(super) async fn page<B: NodeBackend>(
    State(app): State<Shared<B>>,
    ApiPath((token, id)): ApiPath<(String, String)>,
    asked: Asked,
) -> Result<Response, Problem> {
    let opened = open(&app, &token).await?;
    let id = block_id(&id)?;
    opened.content.check_page(id)?;
    let bytes = app.backend.block(id).await?;
    whole(&opened, &asked, "application/cbor", &format!("\"{id}\""), bytes)
}

pub(super) async fn fragments<B: NodeBackend>(
    State(app): State<Shared<B>>,
    ApiPath(token): ApiPath<String>,
    asked: Asked,
) -> Result<Response, Problem> {
    let opened = open(&app, &token).await?;
    let confined = opened.confined(&app).await?;
    let length = opened.content.index().fragments.len() * FRAGMENT_JSON_BYTES;
    let transfer = app.transfers.begin(1 + length / TRANSFER_BYTES, asked.connection.clone())?;
    let is_open = |order| confined.as_ref().is_none_or(|confined| confined.check(order).is_ok());
    let json =
        serde_json::to_vec(&opened.content.fragments_where(is_open)).map_err(|error| Problem::internal(&error))?;
    // What a confined token lists is another document.
    let etag = match confined {
        None => format!("\"{}/fragments\"", opened.content.key()),
        Some(_) => format!("\"{}\"", BlockId::of(&json)),
    };
    let response = whole(&opened, &asked, "application/json", &etag, json.into())?;
    Ok(response.map(|body| counted(body.into_data_stream(), transfer)))
}

pub(super) async fn block<B: NodeBackend>(
    State(app): State<Shared<B>>,
    ApiPath((token, id)): ApiPath<(String, String)>,
    asked: Asked,
) -> Result<Response, Problem> {
    let opened = open(&app, &token).await?;
    let id = block_id(&id)?;
    let part = opened.content.block_part(id)?;
    if let Some(confined) = opened.confined(&app).await? {
        confined.check(part.order)?;
    }
    let size = u64::from(part.block_length);
    let body = Described { media_type: "application/octet-stream", etag: format!("\"{id}\""), size };
    let parts = move |start, end| Parts::Block(cut(part, start, end));
    streamed(&app, &opened, asked, &body, parts).await
}

pub(super) async fn file<B: NodeBackend>(
    State(app): State<Shared<B>>,
    ApiPath((token, path)): ApiPath<(String, String)>,
    asked: Asked,
) -> Result<Response, Problem> {
    let opened = open(&app, &token).await?;
    let file = opened.content.index().file(&path).ok_or_else(|| {
        Problem::new(ErrorKind::NotFound, "The content has no file with this path. The index lists what it has.")
    })?;
    let body =
        Described { media_type: &file.media_type, etag: file_etag(opened.content.key(), &path), size: file.size() };
    if let Some(confined) = opened.confined(&app).await? {
        // What is not sent, as for HEAD and 304, is judged as if it were.
        let range = match asked.select(&body.etag, body.size) {
            Selection::Part { start, end } => start..end,
            Selection::Whole | Selection::Failed | Selection::NotModified | Selection::Unsatisfiable => 0..body.size,
        };
        confined.check_all(opened.content.index().file_parts(file, range))?;
    }
    let content = Arc::clone(&opened.content);
    let parts = move |start, end| Parts::File { content, path, start, end };
    streamed(&app, &opened, asked, &body, parts).await
}

/// Looks the token up and gets the content that it opens.
async fn open<B: NodeBackend>(app: &Shared<B>, token: &str) -> Result<Opened, Problem> {
    let token = Token::parse(token).map_err(|_| {
        Problem::new(ErrorKind::TokenUnknown, "This is no token. Ask the platform for a temporary URL.")
    })?;
    let live = app.tokens.lookup(&token, app.clock.now())?;
    let (key, upload) = match live.issued.grant() {
        Grant::Playback(grant) => (grant.content, None),
        Grant::Upload(grant) => {
            let status = app.backend.upload_status(grant.reference.publication);
            (ready_content(status.as_ref().map(|receiver| receiver.borrow().clone()))?, status)
        }
    };
    let content = app.backend.content(key).await?;
    let leave = Leave::new(app, live.issued, Arc::clone(&content), upload);
    Ok(Opened { content, remaining: live.remaining, leave })
}

/// The content of an upload that was processed: its owner's preview.
fn ready_content(status: Option<UploadStatus>) -> Result<ContentKey, Problem> {
    if let Some(problem) = status.as_ref().filter(|status| is_deleted(status)).and_then(|status| status.error.as_ref())
    {
        return Err(problem.clone());
    }
    let ready = status.filter(|status| status.phase == Phase::Ready).and_then(|status| status.content_key);
    ready.ok_or_else(|| Problem::new(ErrorKind::NotReady, "Wait until the upload's status says ready."))
}

fn block_id(text: &str) -> Result<BlockId, Problem> {
    text.parse().map_err(|_| Problem::new(ErrorKind::NotFound, "A block's id is 64 lowercase hex digits."))
}

/// Content key and path, the path's bytes outside of letters, digits and `-._~/` escaped, for a tag is ASCII without quotes.
fn file_etag(key: ContentKey, path: &str) -> String {
    let mut etag = format!("\"{key}/");
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => etag.push(char::from(byte)),
            _ => etag.push_str(&format!("%{byte:02X}")),
        }
    }
    etag.push('"');
    etag
}

/// What is known of a body before its bytes are there.
struct Described<'a> {
    media_type: &'a str,
    etag: String,
    size: u64,
}

/// Answers with bytes that are in memory.
fn whole(opened: &Opened, asked: &Asked, media_type: &str, etag: &str, bytes: Bytes) -> Result<Response, Problem> {
    let body = Described { media_type, etag: etag.to_owned(), size: bytes.len() as u64 };
    let selection = asked.select(etag, body.size);
    let mut response = head_of(opened, selection, &body)?;
    *response.body_mut() = match selection {
        Selection::Whole => opened.leave.body(bytes),
        // `select` keeps start..end inside the body, whose length is a usize.
        Selection::Part { start, end } => opened.leave.body(bytes.slice(start as usize..end as usize)),
        Selection::Failed | Selection::NotModified | Selection::Unsatisfiable => return Ok(response),
    };
    Ok(response)
}

/// Answers with blocks that are fetched while the response runs. The first is fetched before the status is sent, so that `unavailable`
/// can still be said; a block that fails later breaks the response off.
async fn streamed<B: NodeBackend>(
    app: &Shared<B>,
    opened: &Opened,
    asked: Asked,
    body: &Described<'_>,
    parts: impl FnOnce(u64, u64) -> Parts,
) -> Result<Response, Problem> {
    let selection = asked.select(&body.etag, body.size);
    let mut response = head_of(opened, selection, body)?;
    let range = match selection {
        Selection::Whole => Some((0, body.size)),
        Selection::Part { start, end } => Some((start, end)),
        Selection::Failed | Selection::NotModified | Selection::Unsatisfiable => None,
    };
    if let Some((start, end)) = range.filter(|(start, end)| start < end && asked.method != Method::HEAD) {
        let transfer = app.transfers.begin(1, asked.connection)?;
        let parts = parts(start, end);
        let leave = opened.leave.clone();
        let pass = move |piece: Piece| piece.and_then(|(order, bytes)| leave.pass(order, bytes));
        *response.body_mut() = match parts.single() {
            // Most requests: a block, or a segment that lies in one. There is nothing to read ahead, and so no task.
            Some(part) => counted(stream::iter([Ok(piece(app, part).await?)]).map(pass), transfer),
            None => {
                let mut blocks = spawn_reader(Arc::clone(app), parts);
                let first = blocks.recv().await.unwrap_or_else(|| Err(cut_off()))?;
                let rest = stream::poll_fn(move |context| blocks.poll_recv(context));
                counted(stream::iter([Ok(first)]).chain(rest).map(pass), transfer)
            }
        };
    }
    Ok(response)
}

/// A body that counts as running for as long as hyper holds it: a viewer that stopped reading still holds memory here, though the
/// reader of blocks has given up.
fn counted<E>(bytes: impl Stream<Item = Result<Bytes, E>> + Send + 'static, transfer: RunningTransfer) -> Body
where
    E: Into<axum::BoxError> + 'static,
{
    Body::from_stream(bytes.inspect(move |_| {
        transfer.moved();
    }))
}

/// Status and headers; the body is empty. `Content-Length` is what a GET has, also for HEAD.
fn head_of(opened: &Opened, selection: Selection, body: &Described<'_>) -> Result<Response, Problem> {
    let (status, length, range) = match selection {
        Selection::NotModified => (StatusCode::NOT_MODIFIED, None, None),
        Selection::Whole => (StatusCode::OK, Some(body.size), None),
        Selection::Part { start, end } => {
            (StatusCode::PARTIAL_CONTENT, Some(end - start), Some(format!("bytes {start}-{}/{}", end - 1, body.size)))
        }
        Selection::Unsatisfiable => return Ok(unsatisfiable(opened, body.size)),
        Selection::Failed => return Ok(failed(opened, &body.etag)),
    };
    let mut response = status.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ETAG, text_header(&body.etag)?);
    token_headers(headers, opened.remaining);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(length) = length {
        headers.insert(header::CONTENT_TYPE, text_header(body.media_type)?);
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if let Some(range) = range {
        headers.insert(header::CONTENT_RANGE, text_header(&range)?);
    }
    Ok(response)
}

fn text_header(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text).map_err(|error| Problem::internal(&error))
}

fn token_headers(headers: &mut HeaderMap, remaining: Duration) {
    let seconds = remaining.as_secs();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(TOKEN_REMAINING, seconds.into());
    if let Ok(value) = HeaderValue::from_str(&format!("private, max-age={seconds}")) {
        headers.insert(header::CACHE_CONTROL, value);
    }
}

fn unsatisfiable(opened: &Opened, size: u64) -> Response {
    let detail = format!("The file has {size} bytes. Ask for a range inside it.");
    let mut response = Problem::new(ErrorKind::RangeNotSatisfiable, detail).into_response();
    response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response.headers_mut().insert(TOKEN_REMAINING, opened.remaining.as_secs().into());
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

fn failed(opened: &Opened, etag: &str) -> Response {
    let detail = format!("What is here has the tag {etag}, which If-Match does not name. Ask without If-Match.");
    let mut response = Problem::new(ErrorKind::PreconditionFailed, detail).into_response();
    response.headers_mut().insert(TOKEN_REMAINING, opened.remaining.as_secs().into());
    response
}

/// The pieces of blocks that make a response. Files are walked lazily: a film's list of pieces would take megabytes for each viewer.
enum Parts {
    Block(Part),
    File { content: Arc<Content>, path: String, start: u64, end: u64 },
}

impl Parts {
    /// The piece, if there is only one.
    fn single(&self) -> Option<Part> {
        match self {
            Self::Block(part) => Some(*part),
            Self::File { content, path, start, end } => {
                let file = content.index().file(path)?;
                let mut parts = content.index().file_parts(file, *start..*end);
                let first = parts.next()?;
                parts.next().is_none().then_some(first)
            }
        }
    }
}

/// Bytes `start..end` of a block.
fn cut(part: Part, start: u64, end: u64) -> Part {
    // Both are at most the block's length, a u32.
    Part { skip: start as u32, take: (end - start) as u32, ..part }
}

/// Bytes of a fragment, with its order.
type Piece = Result<(u32, Bytes), Problem>;

/// Fetches the pieces one after another, ahead of the reader by [`READ_AHEAD`]. Ends when the reader goes away, even within a fetch.
fn spawn_reader<B: NodeBackend>(app: Shared<B>, parts: Parts) -> mpsc::Receiver<Piece> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD - 1);
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = read_parts(&app, &parts, &sender) => {}
        }
    });
    receiver
}

async fn read_parts<B: NodeBackend>(app: &Shared<B>, parts: &Parts, sender: &mpsc::Sender<Piece>) {
    match parts {
        Parts::Block(part) => {
            read_part(app, *part, sender).await;
        }
        Parts::File { content, path, start, end } => {
            let Some(file) = content.index().file(path) else { return };
            for part in content.index().file_parts(file, *start..*end) {
                if !read_part(app, part, sender).await {
                    return;
                }
            }
        }
    }
}

/// Fetches and hands over one piece; false when nothing more is to be sent.
async fn read_part<B: NodeBackend>(app: &Shared<B>, part: Part, sender: &mpsc::Sender<Piece>) -> bool {
    let piece = piece(app, part).await;
    let good = piece.is_ok();
    let sent = sender.send_timeout(piece, SEND_STALL).await.is_ok();
    sent && good
}

async fn piece<B: NodeBackend>(app: &Shared<B>, part: Part) -> Piece {
    let piece = app.backend.block(part.id).await.and_then(|block| slice(&block, part));
    if let Err(problem) = &piece {
        tracing::warn!(block = %part.id, %problem, "a block of a response is missing");
    }
    piece.map(|bytes| (part.order, bytes))
}

fn cut_off() -> Problem {
    Problem::new(ErrorKind::Unavailable, "The node stopped reading the content. Ask again, or ask another node.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfers::TransferGauge;

    /// Transfers were counted by the task that reads blocks. It gives up on a viewer that does not read, hyper does not: such
    /// viewers held their blocks uncounted, as many as liked.
    #[tokio::test]
    async fn a_transfer_runs_until_its_body_is_dropped() {
        let gauge = TransferGauge::default();
        let (sender, mut blocks) = mpsc::channel::<Piece>(1);
        let rest = stream::poll_fn(move |context| blocks.poll_recv(context)).map(|piece| piece.map(|(_, bytes)| bytes));
        let mut body = counted(rest, gauge.begin(1, None).unwrap()).into_data_stream();
        sender.send(Ok((1, Bytes::from_static(b"block")))).await.unwrap();
        drop(sender);
        assert_eq!(gauge.running(), 1);
        assert_eq!(body.next().await.unwrap().unwrap(), b"block".as_slice());
        assert!(body.next().await.is_none());
        assert_eq!(gauge.running(), 1);
        drop(body);
        assert_eq!(gauge.running(), 0);
    }

    #[test]
    fn a_fragment_is_not_longer_than_it_counts() {
        let fragment = crate::FragmentEntry {
            order: u64::from(u32::MAX),
            sha256: BlockId::of(b""),
            length: chunkstore_block::MAX_BLOCK_BYTES as u64,
        };
        assert!(serde_json::to_vec(&fragment).unwrap().len() < FRAGMENT_JSON_BYTES);
    }

    #[test]
    fn an_etag_is_ascii_whatever_the_path() {
        let key = ContentKey::from_bytes([0; 32]);
        let etag = file_etag(key, "a b/\"ü\".mp4");
        assert_eq!(etag, format!("\"{key}/a%20b/%22%C3%BC%22.mp4\""));
    }
}
