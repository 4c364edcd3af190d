//! The web pages: built files of one folder, and the policy that browsers hold them to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tower_http::services::ServeDir;

use crate::App;

/// Shown while nothing is built.
const NOT_BUILT: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>iMira</title>\n\
    <h1>The web pages are not built yet</h1>\n\
    <p>Run <code>make web</code> and load this page again. The API under <code>/api</code> works already.</p></html>\n";

/// `/`, `/watch/{content}` and `/assets/...`.
pub(super) fn router(app: &App) -> Router<Arc<App>> {
    // The bundler may put its files into `assets/` or beside the pages.
    let assets = ServeDir::new(app.web.join("assets"))
        .append_index_html_on_directories(false)
        .fallback(ServeDir::new(&app.web).append_index_html_on_directories(false));
    Router::new().route("/", get(home)).route("/watch/{content}", get(watch)).nest_service("/assets", assets)
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
            tracing::warn!(path = %path.display(), %error, "page not found; run `make web`");
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
