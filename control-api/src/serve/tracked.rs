//! Requests under way, counted from their head to the last piece of their response.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use futures::future::BoxFuture;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::room::{Request, Seat};

/// A router that notes what is under way for one connection.
pub(super) struct Tracked {
    router: TowerToHyperService<Router>,
    seat: Arc<Seat>,
    sending: Arc<Sending>,
}

/// Since when each response has waited for its next piece to be taken.
#[derive(Default)]
pub(super) struct Sending {
    next: AtomicU64,
    since: Mutex<BTreeMap<u64, Instant>>,
}

/// The body of a response under way.
pub(super) struct TrackedBody {
    body: Body,
    number: u64,
    sending: Arc<Sending>,
    _request: Request,
}

impl Tracked {
    pub(super) fn new(router: Router, seat: Arc<Seat>) -> Self {
        Self { router: TowerToHyperService::new(router), seat, sending: Arc::default() }
    }

    pub(super) fn sending(&self) -> Arc<Sending> {
        Arc::clone(&self.sending)
    }
}

impl Service<hyper::Request<Incoming>> for Tracked {
    type Response = hyper::Response<TrackedBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: hyper::Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.seat.connection());
        let (under_way, sending) = (self.seat.request(), self.sending());
        let answered = self.router.call(request);
        Box::pin(async move {
            let number = sending.next.fetch_add(1, Ordering::Relaxed);
            Ok(answered.await?.map(|body| TrackedBody { body, number, sending, _request: under_way }))
        })
    }
}

impl Sending {
    /// Whether a viewer has left a piece untaken for so long.
    pub(super) fn is_stalled(&self, patience: Duration) -> bool {
        self.since().values().any(|since| since.elapsed() >= patience)
    }

    /// Each change is a single call.
    fn since(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        // The server asks for a piece when there is room for it. One that is still to come is not for the viewer to take.
        match &polled {
            Poll::Ready(Some(Ok(_))) => this.sending.since().insert(this.number, Instant::now()),
            Poll::Ready(_) | Poll::Pending => this.sending.since().remove(&this.number),
        };
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.sending.since().remove(&self.number);
    }
}
