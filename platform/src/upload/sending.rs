//! Sends a file to a node so that a broken connection costs nothing (tus 1.0, `docs/api.md` §4).

use std::io::SeekFrom;
use std::path::Path;
use std::time::Duration;

use control_api::ErrorKind;
use futures::TryStreamExt;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::time::Instant;
use tokio_util::io::ReaderStream;

use super::{NODE, REQUEST_TIMEOUT, Sending, Slot, UploadError, checked, transport};

/// Larger reads than tokio's 4 KiB: fewer trips to the blocking pool.
const READ_BYTES: usize = 256 * 1024;

/// So long it is tried again without one more byte at the node: a restart of a machine, a walk to another room, a captive portal.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30 * 60);

/// Pauses between tries grow from the first to the last of these.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Sent bytes that nobody acknowledges for so long tell that the connection is dead; without it, Linux waits for a quarter of an hour.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(30);

/// Sends `size` bytes of the file, from where the node has it.
///
/// Errors: what the node says when it refuses; trouble with the connection that lasts for half an hour; `File`.
pub(super) async fn send(
    http: &Client,
    slot: &Slot,
    file: &Path,
    size: u64,
    sending: &Sending,
) -> Result<(), UploadError> {
    // The first request need not ask: nothing has come.
    let (mut offset, mut next, mut pause, mut failing_since) = (0, Some(0), PAUSES.0, None);
    loop {
        let tried = match next.take() {
            Some(offset) => append(http, slot, file, (offset, size), sending).await.map(|()| size),
            None => ask(http, slot).await,
        };
        match tried {
            Ok(there) if there >= size => return Ok(()),
            Ok(there) => {
                if there > offset {
                    (offset, pause, failing_since) = (there, PAUSES.0, None);
                }
                next = Some(there);
            }
            // From the first failure: what was sent before, for hours perhaps, was no failure.
            Err(error)
                if is_passing(&error) && failing_since.get_or_insert_with(Instant::now).elapsed() < GIVE_UP_AFTER =>
            {
                sending.broke(&error, pause);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Sends the file from `offset` on.
async fn append(
    http: &Client,
    slot: &Slot,
    path: &Path,
    (offset, size): (u64, u64),
    sending: &Sending,
) -> Result<(), UploadError> {
    let unreadable = |cause| UploadError::File { path: path.to_owned(), cause };
    // Opened each time: the stream of a request that failed may still be reading, and would move what it shares.
    let mut file = File::open(path).await.map_err(unreadable)?;
    file.seek(SeekFrom::Start(offset)).await.map_err(unreadable)?;
    let (told, mut at) = (sending.clone(), offset);
    told.at(at);
    let chunks = ReaderStream::with_capacity(file.take(size - offset), READ_BYTES).inspect_ok(move |chunk| {
        at += chunk.len() as u64;
        told.at(at);
    });
    let request = of_upload(http, Method::PATCH, slot)
        .header("upload-offset", offset)
        .header(CONTENT_TYPE, "application/offset+octet-stream")
        .header(CONTENT_LENGTH, size - offset)
        .body(reqwest::Body::wrap_stream(chunks));
    checked(NODE, request).await.map(|_| ())
}

/// How many bytes the node has.
async fn ask(http: &Client, slot: &Slot) -> Result<u64, UploadError> {
    let answer = of_upload(http, Method::HEAD, slot)
        .timeout(REQUEST_TIMEOUT)
        .send()
        .await
        .map_err(|cause| transport(NODE, cause))?;
    let bad = UploadError::BadAnswer { who: NODE, status: answer.status().as_u16() };
    let offset = answer.headers().get("upload-offset").and_then(|value| value.to_str().ok()?.parse().ok());
    offset.filter(|_| answer.status().is_success()).ok_or(bad)
}

fn of_upload(http: &Client, method: Method, slot: &Slot) -> RequestBuilder {
    http.request(method, &slot.url).bearer_auth(&slot.token).header("tus-resumable", "1.0.0")
}

/// Whether the same may succeed a little later.
fn is_passing(error: &UploadError) -> bool {
    match error {
        UploadError::Transport { .. } => true,
        UploadError::Refused(problem) => matches!(
            problem.kind,
            ErrorKind::Busy
                | ErrorKind::Internal
                | ErrorKind::UploadIncomplete
                | ErrorKind::UploadLocked
                | ErrorKind::WrongOffset
        ),
        // Of a proxy before the node, or, since a HEAD's refusal has no text, of the node.
        UploadError::BadAnswer { status, .. } => {
            *status >= 500 || *status == StatusCode::TOO_MANY_REQUESTS || *status == StatusCode::LOCKED
        }
        UploadError::File { .. }
        | UploadError::NotAFile { .. }
        | UploadError::BadAddress(_)
        | UploadError::NotAName(_)
        | UploadError::NoPlatform { .. }
        | UploadError::NodeInstead(_)
        | UploadError::Index(_)
        | UploadError::NoKey
        | UploadError::Interrupted(_) => false,
    }
}
