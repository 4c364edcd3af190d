//! What the platform reads from an ingest node with an upload token: the status, and at the end the index and the
//! fragment list, both checked against the content key.

use std::time::Duration;

use axum::http::HeaderMap;
use chunkstore_block::{ContentKey, IndexError, LoadedIndex, Loader, MAX_BLOCK_BYTES};
use control_api::{ClientError, DeliveryClient, FragmentsResponse, TemporaryUrl, Token, UploadStatus};

use crate::store::{Content, Fragment, Stored};

/// A status is small and comes from memory.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// The index and the fragments of a long film may have to be read from disk.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// Why nothing came of a request to the ingest node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    /// No usable answer now; it may come later.
    #[error("the node gives no usable answer: {0}")]
    Silent(String),
    /// The node contradicts the content key, which waiting does not mend.
    #[error("the node's answers do not fit the content key: {0}")]
    Lies(String),
}

impl From<ClientError> for IngestError {
    fn from(error: ClientError) -> Self {
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
#[derive(Debug, Clone)]
pub(crate) struct Ingest {
    delivery: DeliveryClient,
}

impl Ingest {
    pub(crate) fn new(delivery: DeliveryClient) -> Self {
        Self { delivery }
    }

    /// The status of an unfinished upload.
    pub(crate) async fn status(&self, content: &Content) -> Result<UploadStatus, IngestError> {
        let asked = self.delivery.upload_status(&content.upload_url);
        let status = tokio::time::timeout(STATUS_TIMEOUT, asked).await??;
        if status.upload_id.to_string() != content.publication {
            return Err(IngestError::Silent("it answered about another upload".to_owned()));
        }
        Ok(status)
    }

    /// Index and fragments of a finished upload.
    pub(crate) async fn stored(&self, content: &Content, status: &UploadStatus) -> Result<Stored, IngestError> {
        let key = status.content_key.ok_or_else(|| lies("it is ready without a content key"))?;
        let url = preview_url(content)?;
        tokio::time::timeout(LIST_TIMEOUT, self.read(&url, key, status)).await?
    }

    async fn read(&self, url: &TemporaryUrl, key: ContentKey, status: &UploadStatus) -> Result<Stored, IngestError> {
        let (index, loaded) = self.index(url, key).await?;
        let listed = self.delivery.fragments(url).await?;
        check_fragments(key, &loaded, &listed)?;
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

/// `<delivery>/v1/t/<upload token>`, from `<delivery>/v1/uploads/<id>`.
fn preview_url(content: &Content) -> Result<TemporaryUrl, IngestError> {
    let suffix = format!("/v1/uploads/{}", content.publication);
    let delivery = content
        .upload_url
        .strip_suffix(&suffix)
        .ok_or_else(|| lies("its upload URL does not end in /v1/uploads/ and the publication id"))?;
    let token = content.upload_token.as_deref().and_then(|token| Token::parse(token).ok());
    let token = token.ok_or_else(|| lies("the catalogue has no upload token for it"))?;
    Ok(TemporaryUrl::new(&format!("{delivery}/v1/t/"), &token)?)
}

fn check_fragments(key: ContentKey, loaded: &LoadedIndex, listed: &FragmentsResponse) -> Result<(), IngestError> {
    if listed.content_key != key {
        return Err(lies("its fragment list is of another content"));
    }
    let said = listed.fragments.iter().map(|entry| (entry.order, entry.sha256, entry.length));
    let indexed = (1_u64..)
        .zip(loaded.index.fragments.iter())
        .map(|(order, fragment)| (order, fragment.id, u64::from(fragment.length)));
    if said.eq(indexed) { Ok(()) } else { Err(lies("its fragment list is not the one in the index")) }
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
