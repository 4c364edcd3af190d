//! A router that takes no handler without its words for the OpenAPI document, and serves the document.

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::on;
use bytes::Bytes;

use crate::openapi::{self, Endpoint, Listener};
use crate::problem::{ErrorKind, Problem};

/// The routes of one listener.
pub(super) struct Routes<S> {
    router: Router<S>,
    endpoints: Vec<Endpoint>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(super) fn new() -> Self {
        Self { router: Router::new(), endpoints: Vec::new() }
    }

    /// Serves an endpoint.
    pub(super) fn serve<H, T>(self, endpoint: Endpoint, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        let router = self.router.route(endpoint.pattern(), on(endpoint.method(), handler));
        let mut endpoints = self.endpoints;
        endpoints.push(endpoint);
        Self { router, endpoints }
    }

    /// The router, with the document at `/openapi.json`, which says that the listener is at `url`.
    pub(super) fn into_router(mut self, listener: Listener, url: &str) -> Router<S> {
        let own = openapi::control::openapi();
        let pattern = own.pattern();
        let method = own.method();
        self.endpoints.push(own);
        let document = openapi::of_listener(listener, &self.endpoints, url).to_json().map(Bytes::from);
        let answer = document.map_err(|error| Problem::internal(&error));
        let serve = move || std::future::ready(answer.clone().map(|document| (json(), document)));
        self.router
            .route(pattern, on(method, serve))
            .fallback(nothing_here)
            .method_not_allowed_fallback(not_that_method)
    }
}

/// The document of both listeners as indented JSON.
pub(super) fn of_both<S>(mut control: Routes<S>, mut delivery: Routes<S>) -> serde_json::Result<String> {
    for routes in [&mut control, &mut delivery] {
        routes.endpoints.push(openapi::control::openapi());
    }
    openapi::of_both(&control.endpoints, &delivery.endpoints).to_pretty_json()
}

fn json() -> [(header::HeaderName, HeaderValue); 1] {
    [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]
}

async fn nothing_here() -> Problem {
    Problem::new(ErrorKind::NotFound, "This listener has no such path. GET /openapi.json lists those that it has.")
}

/// axum adds `Allow`.
async fn not_that_method(request: Request) -> impl IntoResponse {
    let detail = format!("{} cannot be done here. The header Allow says what can.", request.method());
    Problem::new(ErrorKind::MethodNotAllowed, detail)
}
