//! What the platform reads from an ingest node: the status of an upload, and at the end the index, checked against the
//! content key.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use chunkstore_block::{ContentKey, IndexError, LoadedIndex, Loader, MAX_BLOCK_BYTES};
use control_api::{ClientError, DeliveryClient, ErrorKind, TemporaryUrl, UploadStatus};

use crate::broker::{AccessError, Broker, Watched};
use crate::nodes::NodeList;
use crate::store::{Content, Fragment, Stored};

/// A status is small and comes from memory.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// The index of a long film may have to be read from disk.
const INDEX_TIMEOUT: Duration = Duration::from_secs(60);

/// Why nothing came of a request to the ingest node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    /// No usable answer now; it may come later.
    #[error("{0}")]
    Silent(String),
    /// The node says that it does not know the upload.
    #[error("the node does not know the upload")]
    Unknown,
    /// The node contradicts the content key, which waiting does not mend.
    #[error("the node's answers do not fit the content key: {0}")]
    Lies(String),
}

impl From<ClientError> for IngestError {
    fn from(error: ClientError) -> Self {
        Self::Silent(error.to_string())
    }
}

impl From<AccessError> for IngestError {
    fn from(error: AccessError) -> Self {
        Self::Silent(error.to_string())
    }
}

impl From<tokio::time::error::Elapsed> for IngestError {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        Self::Silent("it takes too long".to_owned())
    }
}

impl From<IndexError> for IngestError {
    fn from(error: IndexError) -> Self {
        Self::Lies(error.to_string())
    }
}

/// Reads from ingest nodes.
#[derive(Clone)]
pub(crate) struct Ingest {
    delivery: DeliveryClient,
    nodes: NodeList,
    broker: Arc<Broker>,
}

impl Ingest {
    pub(crate) fn new(delivery: DeliveryClient, nodes: NodeList, broker: Arc<Broker>) -> Self {
        Self { delivery, nodes, broker }
    }

    /// The status of an unfinished upload.
    pub(crate) async fn status(&self, content: &Content) -> Result<UploadStatus, IngestError> {
        let asked = self.delivery.upload_status(&content.upload_url);
        let status = match tokio::time::timeout(STATUS_TIMEOUT, asked).await? {
            Err(ClientError::Refused(problem)) if problem.kind == ErrorKind::NotFound || problem.status == 404 => {
                return Err(IngestError::Unknown);
            }
            Err(ClientError::Status(404)) => return Err(IngestError::Unknown),
            answer => answer?,
        };
        if status.upload_id.to_string() != content.publication {
            return Err(IngestError::Silent("it answered about another upload".to_owned()));
        }
        Ok(status)
    }

    /// Index and fragments of a finished upload, read with a playback token: the upload token may have ended by now.
    pub(crate) async fn stored(&self, content: &Content, status: &UploadStatus) -> Result<Stored, IngestError> {
        let key = status.content_key.ok_or_else(|| lies("it is ready without a content key"))?;
        let node = self
            .nodes
            .find(&content.network, &content.node)
            .ok_or_else(|| IngestError::Silent("its control listener does not answer".to_owned()))?;
        let access = self
            .broker
            .playback_access(
                &node,
                content.owner,
                Watched { content_key: &key.to_string(), publication: &content.publication },
            )
            .await?;
        let (index, loaded) = tokio::time::timeout(INDEX_TIMEOUT, self.index(&access.url, key)).await??;
        Ok(Stored {
            content_key: key.to_string(),
            duration_ms: status.duration_ms.or(Some(loaded.index.duration_ms)),
            fragments: fragments(&loaded),
            index,
        })
    }

    /// The index block and, with its pages, what it says. The loader checks each block against the id that named it.
    async fn index(&self, url: &TemporaryUrl, key: ContentKey) -> Result<(Vec<u8>, LoadedIndex), IngestError> {
        let root = self.delivery.index(url).await?;
        let mut loader = Loader::new(key, &root)?;
        while let Some(page) = loader.wanted() {
            let answer = self.delivery.get(url, &format!("pages/{}", page.id), false, HeaderMap::new()).await?;
            loader.supply(page.id, &answer.bytes(MAX_BLOCK_BYTES).await?)?;
        }
        Ok((root.to_vec(), loader.finish()?))
    }
}

fn fragments(loaded: &LoadedIndex) -> Vec<Fragment> {
    (1_u64..)
        .zip(loaded.index.fragments.iter())
        .map(|(order, fragment)| Fragment {
            order,
            sha256: fragment.id.to_string(),
            length: u64::from(fragment.length),
        })
        .collect()
}

fn lies(why: impl Into<String>) -> IngestError {
    IngestError::Lies(why.into())
}
