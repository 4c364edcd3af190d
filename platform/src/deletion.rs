//! `imira-platform delete`: finds out what a name stands for, so that a person can say yes to it, and has the platform delete it.

use std::fmt;

use serde::Deserialize;

use crate::catalogue::{ContentName, State};
use crate::secrets::ApiKey;
use crate::upload::{Platform, UploadError, printable};

/// A content of one's own, as a question shows it.
#[derive(Debug, Deserialize)]
pub struct Candidate {
    /// Publication id.
    pub id: String,
    title: String,
    owner: String,
    state: State,
    content_key: Option<String>,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" ({}, {})", printable(&self.title), self.state.as_str(), printable(&self.id))
    }
}

#[derive(Deserialize)]
struct Listed {
    contents: Vec<Candidate>,
}

#[derive(Deserialize)]
struct Me {
    name: String,
}

/// A content at a platform, to be deleted.
pub struct Deletion {
    platform: Platform,
    name: String,
}

impl Deletion {
    /// Of a publication id or a content key; asks nobody yet.
    ///
    /// Errors: `BadAddress`, `NotAName`.
    pub fn new(platform: &str, api_key: &ApiKey, name: &str) -> Result<Self, UploadError> {
        ContentName::parse(name).ok_or_else(|| UploadError::NotAName(printable(name)))?;
        Ok(Self { platform: Platform::new(platform, api_key)?, name: name.to_owned() })
    }

    /// What the name stands for: several where the user published a film more than once. None if it is not among the user's newest
    /// contents, which are all that a platform lists.
    ///
    /// Errors: what the platform says when it refuses, and trouble with the connection.
    pub async fn candidates(&self) -> Result<Vec<Candidate>, UploadError> {
        // The list is for everybody; a wrong API key is refused here.
        let me: Me = self.platform.get("/api/me").await?;
        let Listed { contents } = self.platform.get("/api/contents").await?;
        let named = |content: &Candidate| {
            content.id == self.name || content.content_key.as_ref().is_some_and(|key| *key == self.name)
        };
        Ok(contents.into_iter().filter(|content| content.owner == me.name && named(content)).collect())
    }

    /// Deletes it for good.
    ///
    /// Errors: what the platform says when it refuses, and trouble with the connection.
    pub async fn run(&self) -> Result<(), UploadError> {
        self.platform.delete(&self.name).await
    }
}
