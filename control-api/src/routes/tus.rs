//! tus 1.0 on the delivery listener (`docs/api.md` §4): headers in, headers out. What is kept is the backend's.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chunkstore_block::PublicationId;
use data_encoding::BASE64;
use futures::{Stream, StreamExt, stream};
use hyper::body::{Frame, SizeHint};
use tokio::sync::oneshot;

use super::uploads::{self, SILENCE};
use super::{ApiPath, Shared, has_media_type};
use crate::backend::NodeBackend;
use crate::problem::{ErrorKind, Problem};
use crate::tokens::UploadGrant;
use crate::tus::{Append, CHECKSUM_ALGORITHMS, Checksum, Concat, Creation, FileId, MAX_METADATA_BYTES, MAX_PARTS};

const VERSION: &str = "1.0.0";
const EXTENSIONS: &str = "creation,creation-with-upload,expiration,checksum,termination,concatenation";
const BODY_TYPE: &str = "application/offset+octet-stream";
/// Where uploads are.
const UPLOADS: &str = "/v1/uploads";

/// What is read of a body that a handler left, so that the client comes to read the answer: many do so only once all is sent, and a connection that is
/// closed with unread bytes takes the answer with it.
const DRAINED_BYTES: usize = 8 << 20;
/// For as long at most.
const DRAIN_TIME: Duration = Duration::from_secs(5);

const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
pub(super) const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
pub(super) const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");
pub(super) const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
pub(super) const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
pub(super) const UPLOAD_CONCAT: HeaderName = HeaderName::from_static("upload-concat");
pub(super) const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

/// Request headers that pages of the platform may send.
pub(super) const ALLOWED_HEADERS: [HeaderName; 9] = [
    TUS_RESUMABLE,
    UPLOAD_OFFSET,
    UPLOAD_LENGTH,
    UPLOAD_DEFER_LENGTH,
    UPLOAD_METADATA,
    UPLOAD_CHECKSUM,
    UPLOAD_CONCAT,
    METHOD_OVERRIDE,
    // Some clients add it to every request.
    HeaderName::from_static("x-requested-with"),
];

/// Response headers that they may read.
pub(super) const EXPOSED_HEADERS: [HeaderName; 11] = [
    header::LOCATION,
    TUS_RESUMABLE,
    TUS_VERSION,
    TUS_EXTENSION,
    TUS_MAX_SIZE,
    TUS_CHECKSUM_ALGORITHM,
    UPLOAD_OFFSET,
    UPLOAD_LENGTH,
    UPLOAD_METADATA,
    UPLOAD_EXPIRES,
    UPLOAD_CONCAT,
];

/// Says on every answer about uploads which tus is spoken, and on `OPTIONS` all of it. Goes outside of CORS, which answers every
/// `OPTIONS` itself.
pub(super) async fn announce<B: NodeBackend>(State(state): State<Shared<B>>, request: Request, next: Next) -> Response {
    let is_upload =
        request.uri().path().strip_prefix(UPLOADS).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_question = request.method() == Method::OPTIONS;
    if !is_upload {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let (body, left) = Lent::lend(body);
    let mut response = next.run(Request::from_parts(parts, body)).await;
    drain(left).await;
    if is_question {
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(TUS_EXTENSION, HeaderValue::from_static(EXTENSIONS));
        headers.insert(TUS_MAX_SIZE, HeaderValue::from(state.verifier.max_upload_bytes()));
        headers.insert(TUS_CHECKSUM_ALGORITHM, HeaderValue::from_static(CHECKSUM_ALGORITHMS));
    }
    if is_question || response.status() == StatusCode::PRECONDITION_FAILED {
        response.headers_mut().insert(TUS_VERSION, HeaderValue::from_static(VERSION));
    }
    response.headers_mut().insert(TUS_RESUMABLE, HeaderValue::from_static(VERSION));
    response
}

/// `POST /v1/uploads`.
pub(super) async fn post_any<B: NodeBackend>(
    State(app): State<Shared<B>>,
    request: Request,
) -> Result<Response, Problem> {
    let (headers, body) = split(request);
    let grant = open(&app, &headers, None)?;
    create(&app, grant, &headers, body).await
}

/// `POST /v1/uploads/{upload}`, which may stand for another method.
pub(super) async fn post<B: NodeBackend>(
    State(app): State<Shared<B>>,
    ApiPath(upload): ApiPath<String>,
    request: Request,
) -> Result<Response, Problem> {
    // First of all who has no token: that needs no other word.
    uploads::bearer(request.headers())?;
    match overriding(request.headers())? {
        Method::POST => {
            let (headers, body) = split(request);
            let grant = open(&app, &headers, Some(&upload))?;
            create(&app, grant, &headers, body).await
        }
        method => act(&app, &method, (&upload, FileId::Whole), request).await,
    }
}

/// `POST /v1/uploads/{upload}/parts/{part}`, which always stands for another method.
pub(super) async fn post_part<B: NodeBackend>(
    State(app): State<Shared<B>>,
    ApiPath((upload, part)): ApiPath<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    uploads::bearer(request.headers())?;
    let method = overriding(request.headers())?;
    act(&app, &method, (&upload, part_number(&part)?), request).await
}

/// `HEAD`, `PATCH` and `DELETE` of `/v1/uploads/{upload}`.
pub(super) async fn whole<B: NodeBackend>(
    State(app): State<Shared<B>>,
    ApiPath(upload): ApiPath<String>,
    request: Request,
) -> Result<Response, Problem> {
    let method = request.method().clone();
    act(&app, &method, (&upload, FileId::Whole), request).await
}

/// The same of `/v1/uploads/{upload}/parts/{part}`.
pub(super) async fn part<B: NodeBackend>(
    State(app): State<Shared<B>>,
    ApiPath((upload, part)): ApiPath<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let method = request.method().clone();
    act(&app, &method, (&upload, part_number(&part)?), request).await
}

async fn act<B: NodeBackend>(
    app: &Shared<B>,
    method: &Method,
    (upload, file): (&str, FileId),
    request: Request,
) -> Result<Response, Problem> {
    let (headers, body) = split(request);
    let grant = open(app, &headers, Some(upload))?;
    match *method {
        Method::HEAD => state(app, grant, file).await,
        Method::PATCH => append(app, grant, file, &headers, body).await,
        Method::DELETE => {
            app.backend.terminate_upload(grant.reference.publication, file).await?;
            Ok((StatusCode::NO_CONTENT, uploads::no_store()).into_response())
        }
        _ => Err(invalid("X-HTTP-Method-Override must be PATCH, DELETE or HEAD here.")),
    }
}

async fn create<B: NodeBackend>(
    app: &Shared<B>,
    grant: UploadGrant,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let publication = grant.reference.publication;
    let creation = creation(headers, publication)?;
    let has_body = has_media_type(headers, BODY_TYPE);
    let checksum = checksum(headers)?;
    let metadata = metadata(headers)?;
    let is_final = matches!(creation, Creation::Final { .. });
    let file = app.backend.create_upload(publication, creation, metadata).await?;
    let begun = app.backend.upload_file(publication, file).await?;
    // What is there already, from a request whose answer was lost, is told by the offset.
    if has_body && !is_final && begun.offset == Some(0) {
        let append = Append { file, offset: 0, announced: body.size_hint().exact(), checksum };
        receive(app, publication, append, body).await?;
    }
    let state = app.backend.upload_file(publication, file).await?;
    let location = format!("{}{}", app.delivery_base, path_of(publication, file));
    let mut response = (StatusCode::CREATED, uploads::no_store()).into_response();
    let answer = response.headers_mut();
    answer.insert(header::LOCATION, text(location)?);
    insert_progress(answer, state.offset, state.expires)?;
    Ok(response)
}

async fn state<B: NodeBackend>(app: &Shared<B>, grant: UploadGrant, file: FileId) -> Result<Response, Problem> {
    let publication = grant.reference.publication;
    let state = app.backend.upload_file(publication, file).await?;
    let mut response = (StatusCode::OK, uploads::no_store()).into_response();
    let answer = response.headers_mut();
    insert_progress(answer, state.offset, state.expires)?;
    answer.insert(UPLOAD_LENGTH, HeaderValue::from(state.length));
    if !state.metadata.is_empty() {
        answer.insert(UPLOAD_METADATA, text(state.metadata)?);
    }
    match state.concat {
        None => {}
        Some(Concat::Partial) => drop(answer.insert(UPLOAD_CONCAT, HeaderValue::from_static("partial"))),
        Some(Concat::Final(parts)) => {
            let urls: Vec<_> = parts.into_iter().map(|part| path_of(publication, FileId::Part(part))).collect();
            answer.insert(UPLOAD_CONCAT, text(format!("final;{}", urls.join(" ")))?);
        }
    }
    Ok(response)
}

async fn append<B: NodeBackend>(
    app: &Shared<B>,
    grant: UploadGrant,
    file: FileId,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let publication = grant.reference.publication;
    if !has_media_type(headers, BODY_TYPE) {
        let detail = format!("Send the bytes with Content-Type: {BODY_TYPE}.");
        return Err(Problem::new(ErrorKind::UnsupportedMediaType, detail));
    }
    let offset = number(headers, &UPLOAD_OFFSET)?;
    let append = Append { file, offset, announced: body.size_hint().exact(), checksum: checksum(headers)? };
    let offset = receive(app, publication, append, body).await?;
    let mut response = (StatusCode::NO_CONTENT, uploads::no_store()).into_response();
    // The client has all that it needs with the offset; how long the rest may take is worth no second look that fails.
    let expires = app.backend.upload_file(publication, file).await.ok().and_then(|state| state.expires);
    insert_progress(response.headers_mut(), Some(offset), expires)?;
    Ok(response)
}

/// Hands the body to the backend.
async fn receive<B: NodeBackend>(
    app: &Shared<B>,
    publication: PublicationId,
    append: Append,
    body: Body,
) -> Result<u64, Problem> {
    app.backend.append_upload(publication, append, pieces(body).boxed()).await
}

/// A body's bytes; it ends with an error when it breaks or is silent for too long.
fn pieces(body: Body) -> impl Stream<Item = Result<Bytes, Problem>> + Send + 'static {
    stream::unfold(Some(body.into_data_stream()), |body| async {
        let mut body = body?;
        match tokio::time::timeout(SILENCE, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(body))),
            Ok(Some(Err(_))) | Err(_) => Some((Err(broken()), None)),
        }
    })
}

/// Reads some of what a handler left of a request's body.
async fn drain(left: oneshot::Receiver<Body>) {
    let read = async {
        let Ok(body) = left.await else { return };
        let mut rest = body.into_data_stream();
        let mut read = 0;
        while let Some(Ok(bytes)) = rest.next().await {
            read += bytes.len();
            if read > DRAINED_BYTES {
                return;
            }
        }
    };
    // What takes longer is not waited for.
    let _ = tokio::time::timeout(DRAIN_TIME, read).await;
}

/// A body that comes back, as far as it is unread, when its reader lets go of it.
struct Lent {
    body: Option<Body>,
    back: Option<oneshot::Sender<Body>>,
}

impl Lent {
    fn lend(body: Body) -> (Body, oneshot::Receiver<Body>) {
        let (back, left) = oneshot::channel();
        (Body::new(Self { body: Some(body), back: Some(back) }), left)
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take().filter(|body| !body.is_end_stream()), self.back.take()) {
            // Nobody waits for it where the connection has gone.
            let _ = back.send(body);
        }
    }
}

fn broken() -> Problem {
    let detail = "The connection broke before the body was whole. Ask with HEAD where to go on.";
    Problem::new(ErrorKind::UploadIncomplete, detail)
}

/// Checks version and token; the upload that it is about.
fn open<B: NodeBackend>(app: &Shared<B>, headers: &HeaderMap, upload: Option<&str>) -> Result<UploadGrant, Problem> {
    let token = uploads::bearer(headers)?;
    if headers.get(TUS_RESUMABLE).is_none_or(|version| version != VERSION) {
        let detail = format!("Send Tus-Resumable: {VERSION}, the version that this node speaks.");
        return Err(Problem::new(ErrorKind::TusVersion, detail));
    }
    let live = app.tokens.lookup(&token, app.clock.now()).map_err(|problem| {
        // Upload and token end together; a token that was renewed is unknown.
        if problem.kind == ErrorKind::TokenExpired { expired() } else { problem }
    })?;
    uploads::grant_for(live.issued.grant(), upload)
}

/// The refusal of an upload whose time is over.
fn expired() -> Problem {
    let detail = "The time of this upload is over, and what had come was deleted. Register a new content.";
    Problem::new(ErrorKind::UploadExpired, detail)
}

fn split(request: Request) -> (HeaderMap, Body) {
    let (parts, body) = request.into_parts();
    (parts.headers, body)
}

/// The method that a `POST` stands for.
pub(super) fn overriding(headers: &HeaderMap) -> Result<Method, Problem> {
    let Some(value) = headers.get(METHOD_OVERRIDE) else { return Ok(Method::POST) };
    Method::from_bytes(value.as_bytes()).map_err(|_| invalid("X-HTTP-Method-Override must name a method."))
}

pub(super) fn creation(headers: &HeaderMap, publication: PublicationId) -> Result<Creation, Problem> {
    if headers.contains_key(UPLOAD_DEFER_LENGTH) {
        return Err(invalid(
            "Upload-Defer-Length is not supported: the platform announced the size. Send Upload-Length.",
        ));
    }
    let Some(concat) = headers.get(UPLOAD_CONCAT) else {
        return Ok(Creation::Whole { length: number(headers, &UPLOAD_LENGTH)? });
    };
    let concat = concat.to_str().unwrap_or_default();
    if concat == "partial" {
        return Ok(Creation::Part { length: number(headers, &UPLOAD_LENGTH)? });
    }
    let refuse = || {
        let detail =
            format!("Upload-Concat must be partial, or final; and the URLs of 1 to {MAX_PARTS} parts of this upload.");
        Problem::new(ErrorKind::Invalid, detail)
    };
    let urls = concat.strip_prefix("final;").ok_or_else(refuse)?.split_ascii_whitespace();
    let parts: Vec<_> = urls.map(|url| part_of(url, publication).ok_or_else(refuse)).collect::<Result<_, _>>()?;
    let distinct: std::collections::BTreeSet<_> = parts.iter().collect();
    if parts.is_empty() || parts.len() > MAX_PARTS || distinct.len() != parts.len() {
        return Err(refuse());
    }
    Ok(Creation::Final { parts })
}

/// The part that a URL names, absolute or not: a proxy may have given it another beginning.
fn part_of(url: &str, publication: PublicationId) -> Option<u32> {
    let (upload, part) = url.rsplit_once("/parts/")?;
    let of_this = upload.ends_with(&format!("{UPLOADS}/{publication}"));
    numbered(part).filter(|_| of_this)
}

fn path_of(publication: PublicationId, file: FileId) -> String {
    match file {
        FileId::Whole => format!("{UPLOADS}/{publication}"),
        FileId::Part(number) => format!("{UPLOADS}/{publication}/parts/{number}"),
    }
}

/// From 1: 0 is the whole file.
fn numbered(part: &str) -> Option<u32> {
    part.parse().ok().filter(|number| *number > 0)
}

fn part_number(text: &str) -> Result<FileId, Problem> {
    let no_such = || Problem::new(ErrorKind::NotFound, "This upload has no such part. Create one with POST.");
    numbered(text).map(FileId::Part).ok_or_else(no_such)
}

pub(super) fn number(headers: &HeaderMap, name: &HeaderName) -> Result<u64, Problem> {
    let digits = headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| is_digits(text));
    digits.and_then(|text| text.parse().ok()).ok_or_else(|| {
        let detail = format!("{} is missing or no number of bytes.", title_case(name));
        Problem::new(ErrorKind::Invalid, detail)
    })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// As people write it.
fn title_case(name: &HeaderName) -> String {
    let words = name.as_str().split('-').map(|word| word[..1].to_ascii_uppercase() + &word[1..]);
    words.collect::<Vec<_>>().join("-")
}

pub(super) fn checksum(headers: &HeaderMap) -> Result<Option<Checksum>, Problem> {
    let value = headers.get(UPLOAD_CHECKSUM).map(|value| Checksum::parse(value.to_str().unwrap_or_default()));
    value.transpose()
}

/// `Upload-Metadata`, checked as tus wants it: keys without spaces, each once, and values in base64.
pub(super) fn metadata(headers: &HeaderMap) -> Result<String, Problem> {
    let refuse = || {
        let detail = format!(
            "Upload-Metadata must be pairs of a key and a value in base64, separated by commas, and {MAX_METADATA_BYTES} bytes at most."
        );
        Problem::new(ErrorKind::Invalid, detail)
    };
    let Some(value) = headers.get(UPLOAD_METADATA) else { return Ok(String::new()) };
    let value = value.to_str().map_err(|_| refuse())?;
    let mut keys = std::collections::BTreeSet::new();
    for pair in value.split(',').filter(|_| !value.is_empty()) {
        let (key, encoded) = pair.trim().split_once(' ').unwrap_or((pair.trim(), ""));
        let is_value = BASE64.decode(encoded.as_bytes()).is_ok();
        if key.is_empty() || !is_value || !keys.insert(key) {
            return Err(refuse());
        }
    }
    if value.len() > MAX_METADATA_BYTES {
        return Err(refuse());
    }
    Ok(value.to_owned())
}

fn insert_progress(headers: &mut HeaderMap, offset: Option<u64>, expires: Option<u64>) -> Result<(), Problem> {
    if let Some(offset) = offset {
        headers.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
    }
    if let Some(expires) = expires {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(expires);
        headers.insert(UPLOAD_EXPIRES, text(httpdate::fmt_http_date(time))?);
    }
    Ok(())
}

fn text(value: String) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(&value).map_err(|error| Problem::internal(&error))
}

fn invalid(detail: &'static str) -> Problem {
    Problem::new(ErrorKind::Invalid, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        assert_eq!(number(&with(UPLOAD_OFFSET, "42"), &UPLOAD_OFFSET).unwrap(), 42);
        for bad in ["", "-1", "+1", " 1", "1.0", "0x1", "18446744073709551616"] {
            let problem = number(&with(UPLOAD_OFFSET, bad), &UPLOAD_OFFSET).unwrap_err();
            assert!(problem.kind == ErrorKind::Invalid && problem.detail.starts_with("Upload-Offset "), "{bad}");
        }
    }

    #[test]
    fn metadata_is_pairs() {
        for good in ["", "is_confidential", "filename d29ybGQucGRm,is_confidential", "a YQ==, b"] {
            assert_eq!(metadata(&with(UPLOAD_METADATA, good)).unwrap(), good);
        }
        for bad in ["filename world.pdf", "a YQ==,a YQ==", ",", "a b c"] {
            assert!(metadata(&with(UPLOAD_METADATA, bad)).is_err(), "{bad}");
        }
        let long = HeaderValue::from_str(&"a".repeat(MAX_METADATA_BYTES + 1)).unwrap();
        assert!(metadata(&HeaderMap::from_iter([(UPLOAD_METADATA, long)])).is_err());
    }

    #[test]
    fn parts_are_named_by_their_urls() {
        let publication = PublicationId::from_bytes([0xab; 16]);
        let creation = |value: String| {
            let mut headers = HeaderMap::from_iter([(UPLOAD_CONCAT, HeaderValue::from_str(&value).unwrap())]);
            headers.insert(UPLOAD_LENGTH, HeaderValue::from(7_u64));
            super::creation(&headers, publication)
        };
        let part = |number: &str| path_of(publication, FileId::Part(1)).replace("parts/1", &format!("parts/{number}"));
        assert_eq!(creation("partial".into()).unwrap(), Creation::Part { length: 7 });
        let both = format!("final;{} http://n:1/up{}", part("2"), part("1"));
        assert_eq!(creation(both).unwrap(), Creation::Final { parts: vec![2, 1] });
        let foreign = path_of(PublicationId::from_bytes([1; 16]), FileId::Part(1));
        for bad in ["", "final", "final;", &format!("final;{foreign}"), &format!("final;{0} {0}", part("1")), "whole"] {
            assert_eq!(creation(bad.to_owned()).unwrap_err().kind, ErrorKind::Invalid, "{bad}");
        }
        for bad in ["x", "0", "-1", "", "4294967296"] {
            assert!(creation(format!("final;{}", part(bad))).is_err(), "{bad}");
        }
    }
}
