use super::*;
use crate::types::{NotReady, Readiness};
use axum::body::Body;
use axum::routing::get;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::{Mutex, PoisonError};
use tracing_subscriber::fmt::MakeWriter;

/// A log in memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn what_a_node_could_not_do_is_one_line_without_a_token() {
    let lines = Lines::default();
    let log = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).finish();
    let _log = tracing::subscriber::set_default(log);
    let refused = |kind| move || ready(Problem::new(kind, "why"));
    let unready = || ready(control::readiness(Readiness::from(vec![NotReady::new("no-room", "full")])));
    let router = Router::new()
        .route("/v1/t/{token}/full", get(refused(ErrorKind::NoRoom)))
        .route("/v1/t/{token}/broken", get(refused(ErrorKind::Internal)))
        .route("/v1/t/{token}/wrong", get(refused(ErrorKind::TokenUnknown)))
        .route("/readyz", get(unready));
    let router = TowerToHyperService::new(traced(router));
    for path in ["/v1/t/SECRET/full?q=SECRET", "/v1/t/SECRET/broken", "/v1/t/SECRET/wrong", "/readyz"] {
        router.call(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.len() == 2 && !text.contains("SECRET"), "{text}");
    for word in ["WARN", "method=GET", "route=\"/v1/t/{token}/full\"", "status=507", "problem=\"no-room\""] {
        assert!(lines[0].contains(word), "{word}: {text}");
    }
    assert!(lines[1].contains("ERROR") && lines[1].contains("/broken") && lines[1].contains("internal"), "{text}");
}
