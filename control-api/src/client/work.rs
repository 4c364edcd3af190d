//! Asking for long work, and reading its lines.

use std::path::Path;

use bytes::BytesMut;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use reqwest::Response;
use serde::Serialize;

use super::{ClientError, NodeClient, send};
use crate::work::{BackupRequest, WorkLine};

/// The longest line: a report of 1,000 damaged blocks has 67 KiB.
const MAX_LINE_BYTES: usize = 256 << 10;

impl NodeClient {
    /// `POST /v1/verify`: the node reads every block. Dropping the stream ends the work.
    pub async fn verify(
        &self,
    ) -> Result<impl Stream<Item = Result<WorkLine, ClientError>> + Send + use<>, ClientError> {
        self.work("/v1/verify", &serde_json::Map::new()).await
    }

    /// `POST /v1/backup`: the node copies its store into a folder of its machine, an absolute path. Dropping the stream ends
    /// the work.
    pub async fn backup(
        &self,
        folder: &Path,
    ) -> Result<impl Stream<Item = Result<WorkLine, ClientError>> + Send + use<>, ClientError> {
        self.work("/v1/backup", &BackupRequest { folder: folder.to_owned() }).await
    }

    async fn work(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<BoxStream<'static, Result<WorkLine, ClientError>>, ClientError> {
        let response = send(self.http.post(format!("{}{path}", self.control)).json(body)).await?;
        let start = Lines { response, buffer: BytesMut::new() };
        let lines = stream::unfold(Some(start), |lines| async { lines?.next().await });
        Ok(lines.boxed())
    }
}

struct Lines {
    response: Response,
    buffer: BytesMut,
}

impl Lines {
    async fn next(mut self) -> Option<(Result<WorkLine, ClientError>, Option<Self>)> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Some(match serde_json::from_slice(&line) {
                    Ok(line) => (Ok(line), Some(self)),
                    Err(_) => (Err(ClientError::BadAnswer), None),
                });
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                return Some((Err(ClientError::TooLong(MAX_LINE_BYTES)), None));
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => return None,
                Err(error) => return Some((Err(error.into()), None)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::WorkProgress;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::post;

    /// What comes of an answer that arrives in these pieces.
    async fn read(pieces: Vec<String>) -> Vec<Result<WorkLine, ClientError>> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = NodeClient::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let answer = move || {
            let pieces = stream::iter(pieces.clone()).then(async |piece| {
                tokio::task::yield_now().await;
                Ok::<_, std::io::Error>(piece)
            });
            std::future::ready(Body::from_stream(pieces))
        };
        let router = Router::new().route("/v1/verify", post(answer));
        tokio::spawn(crate::serve(listener, router, std::future::pending()));
        client.verify().await.unwrap().collect().await
    }

    #[tokio::test]
    async fn lines_come_whole_however_they_were_cut() {
        let text = r#"{"progress":{"done_bytes":1,"total_bytes":2}}
{"verified":{"blocks":3,"bytes":2,"damaged_blocks":0,"damaged":[]}}
"#;
        for size in [1, 7, 50, text.len()] {
            let pieces = text.as_bytes().chunks(size).map(|piece| String::from_utf8(piece.to_vec()).unwrap());
            let lines: Vec<_> = read(pieces.collect()).await.into_iter().map(Result::unwrap).collect();
            assert_eq!(lines[0], WorkLine::Progress(WorkProgress { done_bytes: 1, total_bytes: 2 }));
            assert!(matches!(&lines[1..], [WorkLine::Verified(report)] if report.blocks == 3), "{lines:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_line_ends_the_reading() {
        assert!(matches!(read(vec!["rubbish\n{}\n".to_owned()]).await[..], [Err(ClientError::BadAnswer)]));
        let endless = vec!["a".repeat(MAX_LINE_BYTES + 1), "b".to_owned()];
        assert!(matches!(read(endless).await[..], [Err(ClientError::TooLong(MAX_LINE_BYTES))]));
        // Half a line is of a node that ended.
        assert!(read(vec!["{\"progress\"".to_owned()]).await.is_empty());
    }
}
