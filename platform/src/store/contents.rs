//! Contents: their rows, their ordered fragments and their index blocks.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::{Store, StoreError};
use crate::catalogue::{ContentName, State, Visibility};

/// The newest contents of a list; older ones need paging, which the contract has no room for yet.
const LIST_LIMIT: i64 = 500;

/// Rejected empty files that are kept for each user; they cost their sender nothing, so the oldest go.
const MAX_EMPTY_PER_USER: i64 = 64;

/// Fragments in one statement: four of SQLite's 32,766 variables each, and few enough statements for the longest film.
const FRAGMENTS_AT_ONCE: usize = 500;

/// The columns that [`read_content`] reads, in no particular order.
macro_rules! select_content {
    () => {
        "SELECT contents.*, users.name AS owner_name FROM contents JOIN users ON users.id = contents.owner"
    };
}
/// A content as the catalogue knows it.
#[derive(Clone, PartialEq)]
pub struct Content {
    /// Publication id, 32 hex digits.
    pub publication: String,
    /// Row id of the owner.
    pub owner: i64,
    /// Name of the owner.
    pub owner_name: String,
    /// Title as given.
    pub title: String,
    /// Whom it is for.
    pub visibility: Visibility,
    /// Where it stands.
    pub state: State,
    /// Network id.
    pub network: String,
    /// `PeerId` of the ingest node.
    pub node: String,
    /// Where the file goes.
    pub upload_url: String,
    /// The upload token, a secret, while it is of use.
    pub upload_token: Option<String>,
    /// Content key, once ready.
    pub content_key: Option<String>,
    /// Duration in milliseconds, once ready.
    pub duration_ms: Option<i64>,
    /// When it was registered, seconds since 1970.
    pub created: i64,
    /// Phase, percent and remaining seconds, as JSON.
    pub progress: Option<Value>,
    /// A problem object, once rejected.
    pub error: Option<Value>,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The upload token stays out.
        f.debug_struct("Content")
            .field("publication", &self.publication)
            .field("state", &self.state)
            .field("content_key", &self.content_key)
            .finish_non_exhaustive()
    }
}

/// What is known when a content is registered.
pub struct NewContent {
    /// Publication id, 32 hex digits.
    pub publication: String,
    /// Row id of the owner.
    pub owner: i64,
    /// Title as given.
    pub title: String,
    /// Whom it will be for.
    pub visibility: Visibility,
    /// Network id.
    pub network: String,
    /// `PeerId` of the ingest node.
    pub node: String,
    /// Where the file goes.
    pub upload_url: String,
    /// The upload token, a secret.
    pub upload_token: String,
    /// Announced size of the file in bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub created: i64,
}

/// One entry of the ordered fragment list (white paper 4.2.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// Order, from 1.
    pub order: u64,
    /// Block id, hex.
    pub sha256: String,
    /// Bytes.
    pub length: u64,
}

/// What a node says about a content that it has finished.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Content key.
    pub content_key: String,
    /// Duration in milliseconds.
    pub duration_ms: Option<u64>,
    /// In order.
    pub fragments: Vec<Fragment>,
    /// The index block, already checked against the key.
    pub index: Vec<u8>,
}

impl Store {
    /// Registers a content in the state `pending`.
    pub async fn register(&self, new: &NewContent) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO contents (publication, owner, title, visibility, state, network, node, upload_url,
                                   upload_token, size, created)
             VALUES (?, ?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?)",
        )
        .bind(&new.publication)
        .bind(new.owner)
        .bind(&new.title)
        .bind(new.visibility.as_str())
        .bind(&new.network)
        .bind(&new.node)
        .bind(&new.upload_url)
        .bind(&new.upload_token)
        .bind(signed(new.size))
        .bind(new.created)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Registers an empty file, which is rejected from the start, and forgets the oldest of a user who sends too many.
    pub async fn register_empty(&self, new: &NewContent, problem: &Value) -> Result<(), StoreError> {
        let mut change = self.pool.begin().await?;
        sqlx::query(
            "INSERT INTO contents (publication, owner, title, visibility, state, network, node, upload_url, size,
                                   created, error)
             VALUES (?, ?, ?, ?, 'rejected', ?, '', '', 0, ?, ?)",
        )
        .bind(&new.publication)
        .bind(new.owner)
        .bind(&new.title)
        .bind(new.visibility.as_str())
        .bind(&new.network)
        .bind(new.created)
        .bind(problem.to_string())
        .execute(&mut *change)
        .await?;
        sqlx::query(
            "DELETE FROM contents WHERE sequence IN
             (SELECT sequence FROM contents WHERE owner = ? AND state = 'rejected' AND size = 0
              ORDER BY sequence DESC LIMIT -1 OFFSET ?)",
        )
        .bind(new.owner)
        .bind(MAX_EMPTY_PER_USER)
        .execute(&mut *change)
        .await?;
        change.commit().await?;
        Ok(())
    }

    /// How many uploads of a user are under way.
    pub async fn unfinished_count(&self, owner: i64) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT count(*) FROM contents WHERE owner = ? AND state IN ('pending', 'processing')")
            .bind(owner)
            .fetch_one(&self.pool)
            .await?;
        Ok(row.try_get(0)?)
    }

    /// All publications of a name: a content key may have several. Published ones first, the oldest before the newer, so
    /// that nobody takes over the page of a film by uploading it again.
    pub async fn find(&self, name: &ContentName) -> Result<Vec<Content>, StoreError> {
        let query = match name {
            ContentName::Publication(id) => sqlx::query(concat!(select_content!(), " WHERE publication = ?")).bind(id),
            ContentName::Key(key) => sqlx::query(concat!(
                select_content!(),
                " WHERE content_key = ? ORDER BY state = 'published' DESC, sequence LIMIT 500"
            ))
            .bind(key),
        };
        read_contents(&query.fetch_all(&self.pool).await?)
    }

    /// The newest that are published and public and, for a user, the newest of theirs; newest first. Each has a bound of its
    /// own, so that what others publish never hides one's own.
    pub async fn list(&self, user: Option<i64>) -> Result<Vec<Content>, StoreError> {
        let rows = sqlx::query(concat!(
            select_content!(),
            " WHERE sequence IN (SELECT sequence FROM contents WHERE state = 'published' AND visibility = 'public'
                                 ORDER BY sequence DESC LIMIT ?)
                 OR sequence IN (SELECT sequence FROM contents WHERE owner = ? ORDER BY sequence DESC LIMIT ?)
              ORDER BY sequence DESC"
        ))
        .bind(LIST_LIMIT)
        .bind(user)
        .bind(LIST_LIMIT)
        .fetch_all(&self.pool)
        .await?;
        read_contents(&rows)
    }

    /// Everything that a node is still at work on.
    pub async fn unfinished(&self) -> Result<Vec<Content>, StoreError> {
        let rows =
            sqlx::query(concat!(select_content!(), " WHERE state IN ('pending', 'processing') ORDER BY sequence"))
                .fetch_all(&self.pool)
                .await?;
        read_contents(&rows)
    }

    /// Notes how far an unfinished content has come. What is `processing` stays so, whatever the node says.
    pub async fn note_progress(&self, publication: &str, state: State, progress: &Value) -> Result<(), StoreError> {
        let changed = sqlx::query(
            "UPDATE contents SET state = CASE state WHEN 'processing' THEN state ELSE ? END, progress = ?
             WHERE publication = ? AND state IN ('pending', 'processing')",
        )
        .bind(state.as_str())
        .bind(progress.to_string())
        .bind(publication)
        .execute(&self.pool)
        .await?;
        expect_changed(changed.rows_affected())
    }

    /// Stores key, fragments and index block of a finished content, which becomes `ready`, and forgets its upload
    /// token. All or nothing.
    pub async fn complete(&self, publication: &str, stored: &Stored) -> Result<(), StoreError> {
        let mut change = self.pool.begin().await?;
        let changed = sqlx::query(
            "UPDATE contents SET state = 'ready', content_key = ?, duration_ms = ?, upload_token = NULL,
                                 progress = NULL
             WHERE publication = ? AND state IN ('pending', 'processing')",
        )
        .bind(&stored.content_key)
        .bind(stored.duration_ms.map(signed))
        .bind(publication)
        .execute(&mut *change)
        .await?;
        expect_changed(changed.rows_affected())?;
        for fragments in stored.fragments.chunks(FRAGMENTS_AT_ONCE) {
            insert_fragments(publication, fragments)?.build().execute(&mut *change).await?;
        }
        sqlx::query("INSERT INTO index_blocks (content_key, bytes) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(&stored.content_key)
            .bind(&stored.index)
            .execute(&mut *change)
            .await?;
        change.commit().await?;
        Ok(())
    }

    /// Gives an unfinished content up, with a problem object that says why.
    pub async fn reject(&self, publication: &str, problem: &Value) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        reject(&mut connection, publication, problem).await
    }

    /// Forgets a content that was rejected before any node had heard of it.
    pub async fn dismiss(&self, publication: &str) -> Result<(), StoreError> {
        let changed = sqlx::query("DELETE FROM contents WHERE publication = ? AND state = 'rejected' AND node = ''")
            .bind(publication)
            .execute(&self.pool)
            .await?;
        expect_changed(changed.rows_affected())
    }

    /// `ready` -> `published`.
    pub async fn publish(&self, publication: &str) -> Result<(), StoreError> {
        let changed = sqlx::query("UPDATE contents SET state = 'published' WHERE publication = ? AND state = 'ready'")
            .bind(publication)
            .execute(&self.pool)
            .await?;
        expect_changed(changed.rows_affected())
    }

    /// The fragments of a content in order; empty before it is ready.
    pub async fn fragments(&self, publication: &str) -> Result<Vec<Fragment>, StoreError> {
        let rows =
            sqlx::query("SELECT position, sha256, length FROM fragments WHERE publication = ? ORDER BY position")
                .bind(publication)
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(read_fragment).collect()
    }

    /// The platform's copy of an index block.
    pub async fn index_block(&self, content_key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT bytes FROM index_blocks WHERE content_key = ?")
            .bind(content_key)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }
}

pub(super) async fn reject(
    connection: &mut SqliteConnection,
    publication: &str,
    problem: &Value,
) -> Result<(), StoreError> {
    let changed = sqlx::query(
        "UPDATE contents SET state = 'rejected', error = ?, upload_token = NULL, progress = NULL
         WHERE publication = ? AND state IN ('pending', 'processing')",
    )
    .bind(problem.to_string())
    .bind(publication)
    .execute(connection)
    .await?;
    expect_changed(changed.rows_affected())
}

fn insert_fragments(publication: &str, fragments: &[Fragment]) -> Result<QueryBuilder<Sqlite>, StoreError> {
    let ids: Vec<Vec<u8>> = fragments.iter().map(|fragment| unhex(&fragment.sha256)).collect::<Result<_, _>>()?;
    let mut insert = QueryBuilder::new("INSERT INTO fragments (publication, position, sha256, length) ");
    insert.push_values(fragments.iter().zip(ids), |mut row, (fragment, id)| {
        row.push_bind(publication.to_owned())
            .push_bind(signed(fragment.order))
            .push_bind(id)
            .push_bind(signed(fragment.length));
    });
    Ok(insert)
}

fn read_contents(rows: &[SqliteRow]) -> Result<Vec<Content>, StoreError> {
    rows.iter().map(read_content).collect()
}

fn read_content(row: &SqliteRow) -> Result<Content, StoreError> {
    Ok(Content {
        publication: row.try_get("publication")?,
        owner: row.try_get("owner")?,
        owner_name: row.try_get("owner_name")?,
        title: row.try_get("title")?,
        visibility: Visibility::parse(row.try_get("visibility")?).ok_or(StoreError::Unreadable("visibility"))?,
        state: State::parse(row.try_get("state")?).ok_or(StoreError::Unreadable("state"))?,
        network: row.try_get("network")?,
        node: row.try_get("node")?,
        upload_url: row.try_get("upload_url")?,
        upload_token: row.try_get("upload_token")?,
        content_key: row.try_get("content_key")?,
        duration_ms: row.try_get("duration_ms")?,
        created: row.try_get("created")?,
        progress: read_json(row, "progress")?,
        error: read_json(row, "error")?,
    })
}

fn read_json(row: &SqliteRow, column: &'static str) -> Result<Option<Value>, StoreError> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(serde_json::from_str).transpose().map_err(|_| StoreError::Unreadable(column))
}

fn read_fragment(row: &SqliteRow) -> Result<Fragment, StoreError> {
    let unsigned = |column| -> Result<u64, StoreError> {
        u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| StoreError::Unreadable("fragment"))
    };
    Ok(Fragment {
        order: unsigned("position")?,
        sha256: data_encoding::HEXLOWER.encode(row.try_get("sha256")?),
        length: unsigned("length")?,
    })
}

fn unhex(text: &str) -> Result<Vec<u8>, StoreError> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| StoreError::Unreadable("block id"))
}

fn expect_changed(rows: u64) -> Result<(), StoreError> {
    if rows == 0 { Err(StoreError::WrongState) } else { Ok(()) }
}

/// SQLite's integers are signed; a size beyond 2^63 is nobody's file.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) const ID: &str = "0123456789abcdef0123456789abcdef";

    pub(crate) struct Fixture {
        _folder: tempfile::TempDir,
        pub(crate) store: Store,
        pub(crate) ada: i64,
    }

    pub(crate) async fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("platform.db")).await.unwrap();
        store.add_user("ada", Some(&[1; 32]), b"key", 1).await.unwrap();
        let ada = store.user_by_name("ada").await.unwrap().unwrap().id;
        let fixture = Fixture { _folder: folder, store, ada };
        fixture.register(ID).await;
        fixture
    }

    fn new(owner: i64, publication: &str) -> NewContent {
        NewContent {
            publication: publication.into(),
            owner,
            title: "Sintel".into(),
            visibility: Visibility::Public,
            network: "00".into(),
            node: "12D3".into(),
            upload_url: "http://node/v1/uploads/x".into(),
            upload_token: "secret".into(),
            size: 9,
            created: 5,
        }
    }

    impl Fixture {
        pub(crate) async fn register(&self, publication: &str) {
            self.store.register(&new(self.ada, publication)).await.unwrap();
        }

        pub(crate) async fn one(&self) -> Content {
            self.store.find(&ContentName::Publication(ID.into())).await.unwrap().remove(0)
        }
    }

    pub(crate) fn stored() -> Stored {
        let fragment = |order: u64| Fragment { order, sha256: "ab".repeat(32), length: 10 * order };
        Stored {
            content_key: "cd".repeat(32),
            duration_ms: Some(55_000),
            fragments: vec![fragment(1), fragment(2)],
            index: vec![1, 2, 3],
        }
    }

    #[tokio::test]
    async fn a_content_goes_from_pending_to_published() {
        let fixture = fixture().await;
        let store = &fixture.store;
        assert_eq!(fixture.one().await.state, State::Pending);
        assert_eq!(store.unfinished_count(fixture.ada).await.unwrap(), 1);
        let progress = json!({"phase": "transcoding", "percent": 10.0, "remaining_seconds": null});
        store.note_progress(ID, State::Processing, &progress).await.unwrap();
        assert_eq!(fixture.one().await.progress, Some(progress));
        assert!(matches!(store.publish(ID).await, Err(StoreError::WrongState)));
        store.complete(ID, &stored()).await.unwrap();
        let ready = fixture.one().await;
        assert_eq!((ready.state, ready.upload_token, ready.duration_ms), (State::Ready, None, Some(55_000)));
        assert_eq!(store.fragments(ID).await.unwrap(), stored().fragments);
        assert_eq!(store.index_block(&stored().content_key).await.unwrap().unwrap(), [1, 2, 3]);
        store.publish(ID).await.unwrap();
        assert_eq!(fixture.one().await.state, State::Published);
        assert!(store.unfinished().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_rejected_stays_rejected() {
        let fixture = fixture().await;
        let problem = json!({"type": "urn:imira:error:not-a-video", "title": "Not a video", "status": 422});
        fixture.store.reject(ID, &problem).await.unwrap();
        assert_eq!(fixture.one().await.error, Some(problem));
        assert!(matches!(fixture.store.complete(ID, &stored()).await, Err(StoreError::WrongState)));
        assert!(fixture.store.fragments(ID).await.unwrap().is_empty(), "nothing is left of a failed change");
    }

    #[tokio::test]
    async fn lists_hold_public_ones_and_ones_own() {
        let fixture = fixture().await;
        let other = "f".repeat(32);
        fixture.register(&other).await;
        assert!(fixture.store.list(None).await.unwrap().is_empty());
        let own = fixture.store.list(Some(fixture.ada)).await.unwrap();
        assert_eq!(own.iter().map(|content| content.publication.as_str()).collect::<Vec<_>>(), [&other, ID]);
        fixture.store.complete(ID, &stored()).await.unwrap();
        fixture.store.publish(ID).await.unwrap();
        assert_eq!(fixture.store.list(None).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn ones_own_never_vanish_behind_what_others_publish() {
        let fixture = fixture().await;
        let store = &fixture.store;
        store.add_user("eve", Some(&[2; 32]), b"key", 1).await.unwrap();
        let eve = store.user_by_name("eve").await.unwrap().unwrap().id;
        for n in 0..=LIST_LIMIT {
            let publication = format!("{n:032x}");
            store.register(&new(eve, &publication)).await.unwrap();
            store.complete(&publication, &Stored { fragments: Vec::new(), ..stored() }).await.unwrap();
            store.publish(&publication).await.unwrap();
        }
        assert_eq!(store.list(None).await.unwrap().len(), 500);
        let list = store.list(Some(fixture.ada)).await.unwrap();
        assert_eq!((list.len(), list[500].publication.as_str()), (501, ID));
    }

    #[tokio::test]
    async fn a_second_publication_does_not_take_over_the_key() {
        let fixture = fixture().await;
        let (early, late) = ("e".repeat(32), "f".repeat(32));
        fixture.register(&early).await;
        fixture.register(&late).await;
        for publication in [late.as_str(), &early, ID] {
            fixture.store.complete(publication, &stored()).await.unwrap();
        }
        fixture.store.publish(&late).await.unwrap();
        fixture.store.publish(&early).await.unwrap();
        let found = fixture.store.find(&ContentName::Key(stored().content_key)).await.unwrap();
        assert_eq!(found.iter().map(|content| content.publication.as_str()).collect::<Vec<_>>(), [&early, &late, ID]);
    }

    #[tokio::test]
    async fn long_films_are_stored_in_order() {
        let fixture = fixture().await;
        let count = 2 * u64::try_from(FRAGMENTS_AT_ONCE).unwrap() + 1;
        let fragments: Vec<Fragment> =
            (1..=count).map(|order| Fragment { order, sha256: format!("{order:064x}"), length: order }).collect();
        fixture.store.complete(ID, &Stored { fragments: fragments.clone(), ..stored() }).await.unwrap();
        assert_eq!(fixture.store.fragments(ID).await.unwrap(), fragments);
    }

    #[tokio::test]
    async fn a_state_never_goes_back() {
        let fixture = fixture().await;
        for state in [State::Processing, State::Pending] {
            fixture.store.note_progress(ID, state, &json!({})).await.unwrap();
            assert_eq!(fixture.one().await.state, State::Processing);
        }
    }

    #[tokio::test]
    async fn empty_files_are_rejected_at_once_and_bounded() {
        let fixture = fixture().await;
        for n in 0..70 {
            let new = NewContent { size: 0, ..new(fixture.ada, &format!("{n:032x}")) };
            fixture.store.register_empty(&new, &json!({"type": "x"})).await.unwrap();
        }
        let list = fixture.store.list(Some(fixture.ada)).await.unwrap();
        assert_eq!((list.len(), list[0].state), (65, State::Rejected));
        assert_eq!(list[63].publication, format!("{:032x}", 6));
        assert_eq!(list[64].publication, ID, "what is no empty file stays");
    }

    #[tokio::test]
    async fn the_upload_token_is_not_in_debug_output() {
        let fixture = fixture().await;
        assert!(!format!("{:?}", fixture.one().await).contains("secret"));
    }
}
