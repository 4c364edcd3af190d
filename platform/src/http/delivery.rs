//! `/play` and `/proxy`: from a content's name to a node's bytes, with a fresh token each time (white paper 4.2.1).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use control_api::{ClientError, ErrorKind, FileResponse, Problem};
use serde_json::json;

use super::auth::Viewer;
use super::contents::playable;
use super::{ApiQuery, not_found};
use crate::App;
use crate::broker::{Access, AccessError, Watched};
use crate::choice::Place;
use crate::nodes::Node;

/// `?avoid=` may be repeated; nobody has met more liars than this.
const MAX_AVOID: usize = 64;

/// How long a node may look for the bytes before another is asked. A player gives a segment about this long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Names the node that answers.
const IMIRA_NODE: HeaderName = HeaderName::from_static("imira-node");

/// What a viewer's request says to the node.
const REQUEST_HEADERS: [HeaderName; 3] = [header::RANGE, header::IF_RANGE, header::IF_NONE_MATCH];

/// What the node's answer says to the viewer, besides its media type.
const RESPONSE_HEADERS: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::ETAG,
    header::CACHE_CONTROL,
    HeaderName::from_static("imira-token-remaining"),
];

/// Beside video, audio and images. A node that lies must not run a page of its own on the platform's origin, so other
/// types are sent as bytes.
const MEDIA_TYPES: [&str; 8] = [
    "application/vnd.apple.mpegurl",
    "application/x-mpegurl",
    "application/dash+xml",
    "application/cbor",
    "application/json",
    "application/octet-stream",
    "application/problem+json",
    "text/vtt",
];

/// How the viewer gets the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// From the node, by a 307.
    Redirect,
    /// From the node, whose address and name the player reads from JSON. A node puts what it likes into its own
    /// `Imira-Node`; only the platform can say whose address this is.
    Address,
    /// Through the platform.
    PassThrough,
}

/// One viewer's request.
struct Request<'a> {
    head: bool,
    headers: &'a HeaderMap,
    path: DeliveryPath,
    mode: Mode,
    user: i64,
    watched: Watched<'a>,
}

/// Why one node did not serve a request that another may.
enum Failure {
    Access(AccessError),
    /// Its delivery listener did not give the bytes.
    Delivery(ClientError),
    /// Its delivery listener did not begin to answer within [`HEAD_TIMEOUT`].
    Slow,
}

/// `GET /play/{content}/{path}`
pub(crate) async fn play(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    ApiQuery(query): ApiQuery<Vec<(String, String)>>,
    (method, uri, headers): (Method, Uri, HeaderMap),
) -> Result<Response, Problem> {
    let path = DeliveryPath::of(&uri).ok_or_else(no_such_path)?;
    let mode = if wants_json(&headers) {
        Mode::Address
    } else if path.is_playlist() {
        Mode::PassThrough
    } else {
        Mode::Redirect
    };
    let asked = Asked { name: content_name(&uri), query: &query, method, headers: &headers, path, mode };
    let mut response = serve(&app, viewer, asked).await?;
    // Playlists may be kept for some seconds, and must not be taken for the other answer.
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Whether `Accept` names JSON itself; every media player sends `*/*`.
fn wants_json(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// `GET /proxy/{content}/{path}`
pub(crate) async fn proxy(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    ApiQuery(query): ApiQuery<Vec<(String, String)>>,
    (method, uri, headers): (Method, Uri, HeaderMap),
) -> Result<Response, Problem> {
    let path = DeliveryPath::of(&uri).ok_or_else(no_such_path)?;
    let asked =
        Asked { name: content_name(&uri), query: &query, method, headers: &headers, path, mode: Mode::PassThrough };
    serve(&app, viewer, asked).await
}

/// `{content}` of `/play/{content}/...`. Hex needs no decoding; axum's extractor would refuse what is no UTF-8 before
/// this module can say why.
fn content_name(uri: &Uri) -> &str {
    uri.path().split('/').nth(2).unwrap_or_default()
}

/// What the address and the headers say.
struct Asked<'a> {
    name: &'a str,
    query: &'a [(String, String)],
    method: Method,
    headers: &'a HeaderMap,
    path: DeliveryPath,
    mode: Mode,
}

async fn serve(app: &App, Viewer(user): Viewer, asked: Asked<'_>) -> Result<Response, Problem> {
    let wishes = Wishes::parse(asked.query)?;
    let content = playable(app, asked.name, user.as_ref()).await?;
    let request = Request {
        head: asked.method == Method::HEAD,
        headers: asked.headers,
        path: asked.path,
        mode: asked.mode,
        // Viewers who are not signed in share the guest's key.
        user: user.map_or(app.guest, |user| user.id),
        watched: Watched {
            content_key: content.content_key.as_deref().ok_or_else(no_such_path)?,
            publication: &content.publication,
        },
    };
    deliver(app, &request, &content.network, &wishes).await
}

/// Asks one node after the other until one serves the request; at the end those that were down but may have come back.
async fn deliver(app: &App, request: &Request<'_>, network: &str, wishes: &Wishes) -> Result<Response, Problem> {
    let (mut refusal, mut avoid) = (None, wishes.avoid.clone());
    for last_round in [false, true] {
        // A statement of its own: the thread's generator must not live across an await.
        let order = app.nodes.playback_order(network, &avoid, wishes.near, &mut rand::rng());
        for node in order {
            match attempt(app, request, &node).await {
                Ok(response) => return Ok(response),
                Err(failure) => {
                    // In the second round it would do the same. A node whose control listener does not answer is marked
                    // down instead, and asked again once that is back.
                    if !matches!(failure, Failure::Access(AccessError::Unreachable)) {
                        avoid.push(node.peer_id().to_string());
                    }
                    refusal = note_failure(app, &node, failure).or(refusal);
                }
            }
        }
        if !last_round {
            app.nodes.ask_down_nodes().await;
        }
    }
    Err(refusal.unwrap_or_else(|| {
        Problem::new(
            ErrorKind::NoNode,
            "No node that may serve this answers now. Wait a few seconds, and ask without `avoid`.",
        )
    }))
}

/// Logs why a node failed, and returns what the viewer should hear if no other node does better.
fn note_failure(app: &App, node: &Node, failure: Failure) -> Option<Problem> {
    let peer = node.peer_id();
    match failure {
        Failure::Access(AccessError::Own(problem)) => Some(problem),
        Failure::Access(AccessError::Unreachable) => {
            tracing::warn!(node = %peer, "node does not answer; asking another");
            app.nodes.mark_down(node);
            None
        }
        Failure::Access(AccessError::Refused(problem)) | Failure::Delivery(ClientError::Refused(problem)) => {
            tracing::warn!(node = %peer, kind = problem.kind.name(), "node refuses; asking another");
            Some(problem)
        }
        Failure::Access(error @ AccessError::BadAnswer(_)) => {
            tracing::warn!(node = %peer, %error, "node answers wrongly; asking another");
            None
        }
        // Other viewers may reach it there, and its control listener answered just now: it stays in the list.
        Failure::Delivery(error) => {
            tracing::warn!(node = %peer, %error, "node does not deliver; asking another");
            None
        }
        Failure::Slow => {
            tracing::warn!(node = %peer, "node takes too long to deliver; asking another");
            None
        }
    }
}

async fn attempt(app: &App, request: &Request<'_>, node: &Node) -> Result<Response, Failure> {
    let access = app.broker.playback_access(node, request.user, request.watched).await.map_err(Failure::Access)?;
    match request.mode {
        Mode::Redirect => redirect(&access, &request.path).map_err(Failure::Access),
        Mode::Address => address(&access, &request.path).map_err(Failure::Access),
        Mode::PassThrough => pass_through(app, request, &access).await,
    }
}

fn redirect(access: &Access, path: &DeliveryPath) -> Result<Response, AccessError> {
    let mut location = HeaderValue::from_str(&temporary_url(access, path)?).map_err(|_| BAD_URL)?;
    location.set_sensitive(true);
    let node = HeaderValue::from_str(&access.node).map_err(|_| BAD_URL)?;
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (IMIRA_NODE, node),
    ];
    Ok((StatusCode::TEMPORARY_REDIRECT, headers).into_response())
}

fn address(access: &Access, path: &DeliveryPath) -> Result<Response, AccessError> {
    let answer = json!({"url": temporary_url(access, path)?, "node": access.node});
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

fn temporary_url(access: &Access, path: &DeliveryPath) -> Result<String, AccessError> {
    access.url.at(&path.0).map_err(|_| BAD_URL)
}

const BAD_URL: AccessError = AccessError::BadAnswer("its temporary URL does not fit a header");

async fn pass_through(app: &App, request: &Request<'_>, access: &Access) -> Result<Response, Failure> {
    let headers: HeaderMap = REQUEST_HEADERS
        .into_iter()
        .filter_map(|name| request.headers.get(&name).map(|value| (name, value.clone())))
        .collect();
    let asked = app.delivery.get(&access.url, &request.path.0, request.head, headers);
    // Only for the head: the bytes of a film take as long as the viewer does.
    match tokio::time::timeout(HEAD_TIMEOUT, asked).await.map_err(|_| Failure::Slow)? {
        Ok(answer) => Ok(relay(answer, access)),
        // The content has no such file: no node will differ.
        Err(ClientError::Refused(problem)) if (400..500).contains(&problem.status) && problem.status != 401 => {
            Ok(problem.into_response())
        }
        // A `HEAD` has no body that could say why.
        Err(ClientError::Status(404)) if request.head => Ok(no_such_path().into_response()),
        // A token that the node forgot (it restarted) and blocks that it cannot fetch are worth another node.
        Err(error) => Err(Failure::Delivery(error)),
    }
}

/// The node's answer as the platform's own.
fn relay(answer: FileResponse, access: &Access) -> Response {
    let mut headers = HeaderMap::new();
    for name in RESPONSE_HEADERS {
        if let Some(value) = answer.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(header::CONTENT_TYPE, safe_media_type(&answer.headers));
    // Should a browser show this as a page all the same: no scripts, no origin.
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'; media-src 'self'; style-src 'unsafe-inline'"),
    );
    if let Ok(node) = HeaderValue::from_str(&access.node) {
        headers.insert(IMIRA_NODE, node);
    }
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    (status, headers, Body::from_stream(answer.into_stream())).into_response()
}

fn safe_media_type(headers: &HeaderMap) -> HeaderValue {
    let declared = headers.get(header::CONTENT_TYPE);
    let essence = declared
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|essence| essence.trim().to_ascii_lowercase());
    match (declared, essence) {
        (Some(declared), Some(essence)) if is_safe(&essence) => declared.clone(),
        _ => HeaderValue::from_static("application/octet-stream"),
    }
}

fn is_safe(essence: &str) -> bool {
    // SVG is a page with scripts in disguise.
    let picture = essence.starts_with("image/") && !essence.contains("svg");
    picture || essence.starts_with("video/") || essence.starts_with("audio/") || MEDIA_TYPES.contains(&essence)
}

/// What stands behind `/play/{content}/`, percent-decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DeliveryPath(String);

impl DeliveryPath {
    /// `None` for what no node serves. Dots above all: URL libraries resolve `..`, encoded or not, and a token request
    /// for one content must not reach another part of the node.
    fn of(uri: &Uri) -> Option<Self> {
        let path = uri.path().splitn(4, '/').nth(3)?;
        // Decoded segment by segment, so that an encoded slash stays no separator.
        let segments: Vec<String> = path.split('/').map(plain_segment).collect::<Option<_>>()?;
        let served = matches!(segments[0].as_str(), "index" | "pages" | "fragments" | "blocks" | "files");
        served.then(|| Self(segments.join("/")))
    }

    fn is_playlist(&self) -> bool {
        self.0.starts_with("files/") && self.0.ends_with(".m3u8")
    }
}

fn plain_segment(segment: &str) -> Option<String> {
    let decoded = String::from_utf8(percent_decode(segment)?).ok()?;
    let forbidden = |c: char| c.is_control() || matches!(c, '/' | '\\' | '?' | '#');
    let plain = !decoded.is_empty() && decoded != "." && decoded != ".." && !decoded.contains(forbidden);
    plain.then_some(decoded)
}

/// RFC 3986 §2.1; `None` for a `%` without two hex digits.
fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        decoded.extend(data_encoding::HEXLOWER_PERMISSIVE.decode(&digits).ok()?);
    }
    Some(decoded)
}

/// Which node the viewer would like.
#[derive(Debug, Default, PartialEq)]
struct Wishes {
    avoid: Vec<String>,
    near: Option<Place>,
}

impl Wishes {
    fn parse(query: &[(String, String)]) -> Result<Self, Problem> {
        let mut wishes = Self::default();
        for (name, value) in query {
            match name.as_str() {
                "avoid" if wishes.avoid.len() < MAX_AVOID => wishes.avoid.push(value.clone()),
                "near" => wishes.near = Some(Place::parse(value).ok_or_else(bad_place)?),
                _ => {}
            }
        }
        Ok(wishes)
    }
}

fn bad_place() -> Problem {
    Problem::new(ErrorKind::Invalid, "`near` is `<latitude>,<longitude>` in degrees, for example `near=48.86,2.35`.")
}

fn no_such_path() -> Problem {
    not_found("A content has `index`, `pages/...`, `fragments`, `blocks/...` and `files/...`, and nothing else.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Option<String> {
        let uri: Uri = text.parse().unwrap();
        DeliveryPath::of(&uri).map(|path| path.0)
    }

    #[test]
    fn paths_are_decoded_once() {
        assert_eq!(path("/play/ab/files/720p/a%20b.m4s?near=1,2").as_deref(), Some("files/720p/a b.m4s"));
        assert_eq!(path("/proxy/ab/index").as_deref(), Some("index"));
        let uri: Uri = "/play/ab/files/master.m3u8".parse().unwrap();
        assert!(DeliveryPath::of(&uri).unwrap().is_playlist());
        let uri: Uri = "/play/ab/files/a.mp4".parse().unwrap();
        assert!(!DeliveryPath::of(&uri).unwrap().is_playlist());
    }

    #[test]
    fn nothing_climbs_out_of_the_content() {
        for escape in [
            "/play/ab/files/../../other",
            "/play/ab/files/%2e%2E/x",
            "/play/ab/files/.%2e/x",
            "/play/ab/files//x",
            "/play/ab/files/a%2f..%2fb",
            "/play/ab/files/a%5cb",
            "/play/ab/files/%zz",
            "/play/ab/files/%0a",
            "/play/ab/uploads/x",
            "/play/ab/",
        ] {
            assert_eq!(path(escape), None, "{escape}");
        }
    }

    #[test]
    fn only_who_names_json_gets_it() {
        let json = |accept: &'static str| {
            wants_json(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };
        assert!(json("application/json") && json("text/html, Application/JSON;q=0.9"));
        assert!(!json("*/*") && !json("application/*") && !json("application/json-seq"));
        assert!(!wants_json(&HeaderMap::new()));
    }

    #[test]
    fn wishes_are_read() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let wishes =
            Wishes::parse(&[pair("avoid", "A"), pair("x", "y"), pair("avoid", "B"), pair("near", "1,2")]).unwrap();
        assert_eq!(wishes.avoid, ["A", "B"]);
        assert_eq!(wishes.near, Place::new(1.0, 2.0));
        assert!(Wishes::parse(&[pair("near", "here")]).is_err());
        let many: Vec<_> = (0..1000).map(|n| pair("avoid", &n.to_string())).collect();
        assert_eq!(Wishes::parse(&many).unwrap().avoid.len(), MAX_AVOID);
    }

    #[test]
    fn a_node_cannot_send_a_page() {
        let sent_as = |declared: &'static str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(declared))]);
            safe_media_type(&headers).to_str().unwrap().to_owned()
        };
        assert_eq!(sent_as("video/mp4"), "video/mp4");
        assert_eq!(sent_as("text/vtt; charset=utf-8"), "text/vtt; charset=utf-8");
        for page in ["text/html", "TEXT/HTML", "image/svg+xml", "text/javascript", "application/xhtml+xml"] {
            assert_eq!(sent_as(page), "application/octet-stream");
        }
    }
}
