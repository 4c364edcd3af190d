//! The web pages: built files of one folder, and the policy that browsers hold them to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use tower_http::services::ServeDir;

use crate::App;

/// Shown while the pages are not where `--web` says.
const NOT_BUILT: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>iMira</title>\n\
    <h1>The web pages are not there</h1>\n\
    <p>The platform's operator: the log says in which folder they are looked for (<code>imira-platform run --web</code>). \
    <code>make web</code> builds them into <code>platform/web/dist</code>. \
    The API under <code>/api</code> works already.</p></html>\n";

/// Shown for an address that nothing has.
const NOT_FOUND: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\n\
    <title>Not found \u{2013} iMira</title><link rel=\"icon\" href=\"/assets/icon.svg\" type=\"image/svg+xml\">\n\
    <link rel=\"stylesheet\" href=\"/assets/style.css\">\n\
    <header><a class=\"brand\" href=\"/\"><img src=\"/assets/icon.svg\" alt=\"\" width=\"28\" height=\"28\">iMira</a></header>\n\
    <main><h1>There is no such page</h1>\n\
    <p>The address may be mistyped. <a href=\"/\">All videos</a></p></main></html>\n";

/// `/`, `/watch/{content}` and `/assets/...`.
pub(super) fn router(app: &App) -> Router<Arc<App>> {
    // The bundler may put its files into `assets/` or beside the pages.
    let assets = ServeDir::new(app.web.join("assets"))
        .append_index_html_on_directories(false)
        .fallback(ServeDir::new(&app.web).append_index_html_on_directories(false));
    Router::new()
        .route("/", get(home))
        .route("/watch/{content}", get(watch))
        .route("/favicon.ico", get(|| async { Redirect::temporary("/assets/icon.svg") }))
        .nest_service("/assets", assets)
}

/// Says at the start what every visitor would find out.
pub(crate) fn check(web: &Path) {
    if !web.join("index.html").is_file() {
        let web = std::path::absolute(web).unwrap_or_else(|_| web.to_owned());
        tracing::warn!("no web pages in {} (--web): it has no index.html; `make web` builds the pages", web.display());
    }
}

/// Whether a browser asks for a page.
pub(super) fn wants_html(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|accept| accept.to_ascii_lowercase().contains("text/html"))
}

pub(super) fn not_found() -> Response {
    let vary = [(header::VARY, HeaderValue::from_static("accept"))];
    (StatusCode::NOT_FOUND, vary, Html(NOT_FOUND)).into_response()
}

async fn home(State(app): State<Arc<App>>) -> Response {
    page(&app.web, "index.html").await
}

/// The page asks the API whether the viewer may see the content; its own text is the same for all.
async fn watch(State(app): State<Arc<App>>) -> Response {
    page(&app.web, "watch.html").await
}

async fn page(web: &Path, name: &str) -> Response {
    let path: PathBuf = web.join(name);
    match tokio::fs::read_to_string(&path).await {
        Ok(text) => {
            let fresh = [(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
            (fresh, Html(text)).into_response()
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "page not found; `make web` builds the pages");
            (StatusCode::SERVICE_UNAVAILABLE, Html(NOT_BUILT)).into_response()
        }
    }
}

/// Scripts and styles from here only; data from here and from the nodes, each with a space before it.
pub(super) fn content_security_policy(nodes: &str) -> String {
    format!(
        "default-src 'self'; connect-src 'self'{nodes}; media-src blob: 'self'; worker-src blob: 'self'; \
         img-src 'self' data: blob:; style-src 'self'; script-src 'self'; \
         object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_the_nodes() {
        let policy = content_security_policy(" http://127.0.0.1:7201 https://n.example");
        assert!(policy.contains("connect-src 'self' http://127.0.0.1:7201 https://n.example; "));
        assert!(policy.contains("script-src 'self'; "));
        assert!(content_security_policy("").contains("connect-src 'self'; "));
    }
}
