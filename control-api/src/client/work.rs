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
