//! The control listener before there is a node behind it: opening a large store takes time, and whoever waits is told so.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::control;
use crate::problem::{ErrorKind, Problem};
use crate::types::NotReady;

/// Stands before a router that comes later. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<OnceLock<Router>>);

impl Gate {
    /// What to serve from the beginning: `/healthz` answers, `/readyz` says `starting`, everything else is refused with `starting`; once
    /// the gate is open, all goes to the router behind it.
    pub fn router(&self) -> Router {
        let gate = self.clone();
        Router::new().fallback(move |request: Request| async move { gate.answer(request).await })
    }

    /// Opens the gate, once and for good.
    pub fn open(&self, router: Router) {
        // A gate that is open already keeps what is behind it.
        let _ = self.0.set(router);
    }

    async fn answer(self, request: Request) -> Response {
        if let Some(router) = self.0.get() {
            // It cannot fail.
            return TowerToHyperService::new(router.clone()).call(request).await.into_response();
        }
        let detail = "The node is opening its store. Wait; its log says how far it is.";
        match request.uri().path() {
            "/healthz" => control::healthy().await.into_response(),
            "/readyz" => control::readiness(vec![NotReady::new("starting", detail)].into()),
            _ => Problem::new(ErrorKind::Starting, detail).into_response(),
        }
    }
}
