//! `/api/...`: the catalogue.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use control_api::{ApiPath, ErrorKind, Problem};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{SignedIn, Viewer};
use super::{ApiBody, not_found, read_json};
use crate::App;
use crate::catalogue::{self, ContentName, State as ContentState, Visibility};
use crate::config::Network;
use crate::secrets;
use crate::store::{Content, NewContent, StoreError, User};
use crate::time::now;

/// Longest title, in characters: what fits a page's heading.
const MAX_TITLE: usize = 200;

/// Uploads of one user under way at a time; each is watched by a task and may reserve room on a node.
const MAX_UNFINISHED: i64 = 64;

/// `GET /api/me`
pub(crate) async fn me(SignedIn(user): SignedIn) -> Json<Value> {
    Json(json!({"name": user.name}))
}

#[derive(Deserialize)]
struct Registration {
    title: String,
    visibility: Visibility,
    size: u64,
    network: Option<String>,
}

/// `POST /api/contents`
pub(crate) async fn register(
    State(app): State<Arc<App>>,
    SignedIn(user): SignedIn,
    ApiBody(body): ApiBody,
) -> Result<Response, Problem> {
    let registration: Registration = read_json(&body)?;
    let title = check_title(&registration.title)?;
    let network = wanted_network(&app, registration.network.as_deref())?;
    if app.store.unfinished_count(user.id).await? >= MAX_UNFINISHED {
        return Err(invalid("You have 64 uploads under way; wait until some are finished."));
    }
    let mut new = NewContent {
        publication: new_publication()?,
        owner: user.id,
        title: title.to_owned(),
        visibility: registration.visibility,
        network: network.id.clone(),
        node: String::new(),
        upload_url: String::new(),
        upload_token: String::new(),
        size: registration.size,
        created: now(),
    };
    if new.size == 0 {
        return Err(reject_empty(&app, &new).await?);
    }
    let slot = app.broker.upload_slot(&user, network, &new.publication, new.size).await?;
    let upload = json!({"url": slot.url, "token": slot.token.expose(), "node": slot.node});
    let answer = json!({"id": new.publication, "state": ContentState::Pending, "upload": upload});
    (new.upload_token, new.node, new.upload_url) = (slot.token.expose().to_owned(), slot.node, slot.url);
    // A task of its own: a client that goes away meanwhile must not leave a content that nobody watches.
    let registering = tokio::spawn(store_and_watch(app, new));
    registering.await.map_err(|error| Problem::internal(&error))??;
    Ok((StatusCode::CREATED, no_store(), Json(answer)).into_response())
}

async fn store_and_watch(app: Arc<App>, new: NewContent) -> Result<(), StoreError> {
    app.store.register(&new).await?;
    tracing::info!(publication = %new.publication, node = %new.node, size = new.size, "content registered");
    app.watchers.watch(&new.publication);
    Ok(())
}

/// An empty file needs no node to be refused; its owner finds the content rejected, as any other file that is no video.
async fn reject_empty(app: &App, new: &NewContent) -> Result<Problem, Problem> {
    let problem =
        Problem::new(ErrorKind::UploadEmpty, "The file has no bytes. Choose a film file and upload it again.");
    app.store.register_empty(new, &json!(problem)).await?;
    Ok(problem)
}

/// `GET /api/contents`
pub(crate) async fn list(State(app): State<Arc<App>>, Viewer(user): Viewer) -> Result<Response, Problem> {
    let contents = app.store.list(user.as_ref().map(|user| user.id)).await?;
    // The query filters already; the rule has the last word.
    let contents: Vec<Value> = contents
        .iter()
        .filter(|content| catalogue::may_list(content.state, content.visibility, owns(content, user.as_ref())))
        .map(view)
        .collect();
    let me = user.map(|user| user.name);
    Ok((no_store(), Json(json!({"contents": contents, "me": me}))).into_response())
}

/// `GET /api/contents/{content}`
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Viewer(user): Viewer,
    ApiPath(name): ApiPath<String>,
) -> Result<Response, Problem> {
    let content = visible(&app, &name, user.as_ref()).await?;
    let mut shown = view(&content);
    if owns(&content, user.as_ref()) {
        let served = app.store.served(&content.publication).await?;
        let seconds = served.played_ms / 1_000;
        shown["served"] = json!({"bytes": served.bytes, "seconds": seconds, "views": served.views});
    }
    Ok((no_store(), Json(shown)).into_response())
}

/// `GET /api/contents/{content}/fragments`
pub(crate) async fn fragments(
    State(app): State<Arc<App>>,
    Viewer(user): Viewer,
    ApiPath(name): ApiPath<String>,
) -> Result<Response, Problem> {
    let content = visible(&app, &name, user.as_ref()).await?;
    let Some(key) = &content.content_key else {
        return Err(wrong_state(&content, "It has no fragments before it is ready."));
    };
    let fragments = app.store.fragments(&content.publication).await?;
    Ok((no_store(), Json(json!({"content_key": key, "fragments": fragments}))).into_response())
}

/// `POST /api/contents/{content}/publish`
pub(crate) async fn publish(
    State(app): State<Arc<App>>,
    SignedIn(user): SignedIn,
    ApiPath(name): ApiPath<String>,
) -> Result<Response, Problem> {
    let own: Vec<Content> = find(&app, &name).await?.into_iter().filter(|content| content.owner == user.id).collect();
    // A key may name several publications of the same film: the one that waits is meant.
    let ready = own.iter().find(|content| content.state.may_become(ContentState::Published));
    let content = ready.or(own.first()).ok_or_else(no_such_content)?;
    if !content.state.may_become(ContentState::Published) {
        return Err(wrong_state(content, "Only what is ready can be published."));
    }
    app.store.publish(&content.publication).await?;
    tracing::info!(publication = %content.publication, "content published");
    let published = Content { state: ContentState::Published, ..content.clone() };
    Ok((no_store(), Json(view(&published))).into_response())
}

/// `DELETE /api/contents/{content}`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    SignedIn(user): SignedIn,
    ApiPath(name): ApiPath<String>,
) -> Result<StatusCode, Problem> {
    let own: Vec<Content> = find(&app, &name).await?.into_iter().filter(|content| content.owner == user.id).collect();
    let content = match own.as_slice() {
        [content] => content,
        // An answer that was lost on its way: it is asked again.
        [] if has_deleted(&app, &name, Some(&user)).await? => return Ok(StatusCode::NO_CONTENT),
        [] => return Err(no_such_content()),
        [..] => return Err(invalid(several(own.len()))),
    };
    if content.node.is_empty() {
        // An empty file: no node knows of it.
        app.store.dismiss(&content.publication).await?;
    } else {
        order_deletion(&app, content).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn order_deletion(app: &App, content: &Content) -> Result<(), Problem> {
    let sign = app.broker.deletion_of(content)?;
    app.store.delete(&content.publication, content.owner, now(), sign).await?;
    app.couriers.announce();
    tracing::info!(publication = %content.publication, state = content.state.as_str(), "content deleted");
    Ok(())
}

fn several(count: usize) -> String {
    format!("You published this film {count} times. Say which by its publication id (32 digits).")
}

/// The content of this name that the viewer may play.
pub(super) async fn playable(app: &App, name: &str, user: Option<&User>) -> Result<Content, Problem> {
    first_that(app, name, user, |content| catalogue::may_play(content.state, content.visibility, owns(content, user)))
        .await
}

async fn visible(app: &App, name: &str, user: Option<&User>) -> Result<Content, Problem> {
    first_that(app, name, user, |content| catalogue::may_see(content.state, content.visibility, owns(content, user)))
        .await
}

async fn find(app: &App, name: &str) -> Result<Vec<Content>, Problem> {
    let name = ContentName::parse(name).ok_or_else(no_such_content)?;
    Ok(app.store.find(&name).await?)
}

async fn first_that(
    app: &App,
    name: &str,
    user: Option<&User>,
    allowed: impl Fn(&Content) -> bool,
) -> Result<Content, Problem> {
    match find(app, name).await?.into_iter().find(allowed) {
        Some(content) => Ok(content),
        None if has_deleted(app, name, user).await? => Err(deleted()),
        None => Err(no_such_content()),
    }
}

/// Whether this names a publication that was the user's and that they deleted.
async fn has_deleted(app: &App, name: &str, user: Option<&User>) -> Result<bool, StoreError> {
    match (ContentName::parse(name), user) {
        (Some(ContentName::Publication(id)), Some(user)) => app.store.has_deleted(user.id, &id).await,
        _ => Ok(false),
    }
}

/// For its owner only: to everybody else it is as if it had never been there.
fn deleted() -> Problem {
    Problem::new(ErrorKind::Deleted, "You deleted it. To publish the film again, upload it again.")
}

fn owns(content: &Content, user: Option<&User>) -> bool {
    user.is_some_and(|user| user.id == content.owner)
}

/// One sentence for what is not there and for what is not for this viewer: the difference is nobody's business.
fn no_such_content() -> Problem {
    not_found("There is no such content, or it is not published for you. Its owner can see it when signed in.")
}

fn wrong_state(content: &Content, why: &str) -> Problem {
    Problem::new(ErrorKind::WrongState, format!("The content is {}. {why}", content.state.as_str()))
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::Invalid, detail)
}

fn check_title(title: &str) -> Result<&str, Problem> {
    let title = title.trim();
    let fits = (1..=MAX_TITLE).contains(&title.chars().count()) && !title.chars().any(char::is_control);
    fits.then_some(title)
        .ok_or_else(|| invalid(format!("A title has 1 to {MAX_TITLE} characters and no control characters.")))
}

fn wanted_network<'a>(app: &'a App, wanted: Option<&str>) -> Result<&'a Network, Problem> {
    app.config.network(wanted).ok_or_else(|| {
        let names: Vec<&str> = app.config.networks.iter().map(|network| network.name.as_str()).collect();
        invalid(format!("The platform has no such network; it has: {}.", names.join(", ")))
    })
}

fn new_publication() -> Result<String, Problem> {
    let bytes: [u8; 16] = secrets::random().map_err(|error| Problem::internal(&error))?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

fn no_store() -> [(axum::http::HeaderName, &'static str); 1] {
    [(axum::http::header::CACHE_CONTROL, "no-store")]
}

/// The content object of `docs/api.md` §5.
fn view(content: &Content) -> Value {
    json!({
        "id": content.publication,
        "title": content.title,
        "owner": content.owner_name,
        "visibility": content.visibility,
        "state": content.state,
        "content_key": content.content_key,
        "duration_ms": content.duration_ms,
        "created": content.created,
        "progress": content.progress,
        "error": content.error,
    })
}
