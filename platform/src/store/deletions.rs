//! What was deleted: the signed orders, and how far each node has them.

use control_api::SigningError;
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::contents::reject;
use super::{Content, Store, StoreError};

/// An order that a node must get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The platform's own number.
    pub sequence: u64,
    /// The signed text.
    pub signed: String,
}

impl Store {
    /// Deletes a content of `owner`, whatever its state: the content goes, and the order that `sign` makes with the next
    /// sequence number is there, in one change. That change is on disk when this returns: a power cut must not bring a number back
    /// that a node has seen.
    ///
    /// [`StoreError::WrongState`] if there is no such content (any more).
    pub async fn delete(
        &self,
        publication: &str,
        owner: i64,
        deleted: i64,
        sign: impl FnOnce(u64) -> Result<String, SigningError>,
    ) -> Result<(), StoreError> {
        let mut change = self.durable.begin().await?;
        let gone =
            sqlx::query("DELETE FROM contents WHERE publication = ? AND owner = ? RETURNING network, content_key")
                .bind(publication)
                .bind(owner)
                .fetch_optional(&mut *change)
                .await?
                .ok_or(StoreError::WrongState)?;
        let (network, key): (String, Option<String>) = (gone.try_get("network")?, gone.try_get("content_key")?);
        order(&mut change, publication, owner, &network, deleted, sign).await?;
        sqlx::query(
            "DELETE FROM index_blocks WHERE content_key = ?1
             AND NOT EXISTS (SELECT 1 FROM contents WHERE content_key = ?1)",
        )
        .bind(key)
        .execute(&mut *change)
        .await?;
        change.commit().await?;
        Ok(())
    }

    /// Gives an unfinished content up, as [`Store::reject`] does, and orders that what nodes may have of it goes.
    pub async fn reject_and_order(
        &self,
        content: &Content,
        problem: &Value,
        deleted: i64,
        sign: impl FnOnce(u64) -> Result<String, SigningError>,
    ) -> Result<(), StoreError> {
        let mut change = self.durable.begin().await?;
        reject(&mut change, &content.publication, problem).await?;
        order(&mut change, &content.publication, content.owner, &content.network, deleted, sign).await?;
        change.commit().await?;
        Ok(())
    }

    /// Whether a publication was deleted and was this user's.
    pub async fn has_deleted(&self, owner: i64, publication: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM deletions WHERE publication = ? AND owner = ?")
            .bind(publication)
            .bind(owner)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some())
    }

    /// Up to `limit` orders of a network that a node does not have yet, by their numbers.
    pub async fn undelivered(&self, network: &str, node: &str, limit: u32) -> Result<Vec<Order>, StoreError> {
        let rows = sqlx::query(
            "SELECT sequence, signed FROM deletions WHERE network = ?1 AND sequence >
                 coalesce((SELECT through FROM deletion_progress WHERE network = ?1 AND node = ?2), 0)
             ORDER BY sequence LIMIT ?3",
        )
        .bind(network)
        .bind(node)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read_order).collect()
    }

    /// Up to `limit` orders of a network that a node was brought, by their numbers, above `after`.
    pub async fn delivered(&self, network: &str, node: &str, after: u64, limit: u32) -> Result<Vec<Order>, StoreError> {
        let rows = sqlx::query(
            "SELECT sequence, signed FROM deletions WHERE network = ?1 AND sequence > ?3 AND sequence <=
                 (SELECT through FROM deletion_progress WHERE network = ?1 AND node = ?2)
             ORDER BY sequence LIMIT ?4",
        )
        .bind(network)
        .bind(node)
        .bind(signed(after)?)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read_order).collect()
    }

    /// Notes that a node has all orders of its network up to a number.
    pub async fn note_delivered(&self, network: &str, node: &str, through: u64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO deletion_progress (network, node, through) VALUES (?, ?, ?)
             ON CONFLICT DO UPDATE SET through = max(through, excluded.through)",
        )
        .bind(network)
        .bind(node)
        .bind(signed(through)?)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// At which start of its own, as it tells them, a node had all orders that it was brought.
    pub async fn confirmed_start(&self, network: &str, node: &str) -> Result<Option<u64>, StoreError> {
        let row = sqlx::query("SELECT started FROM deletion_progress WHERE network = ? AND node = ?")
            .bind(network)
            .bind(node)
            .fetch_optional(&self.pool)
            .await?;
        let started: Option<i64> = row.map(|row| row.try_get("started")).transpose()?.flatten();
        Ok(started.map(i64::cast_unsigned))
    }

    /// Notes that a node, as it was started at `started`, has all orders that it was brought.
    pub async fn note_confirmed(&self, network: &str, node: &str, started: u64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO deletion_progress (network, node, through, started) VALUES (?, ?, 0, ?)
             ON CONFLICT DO UPDATE SET started = excluded.started",
        )
        .bind(network)
        .bind(node)
        // Whatever number a node says: it is only compared.
        .bind(started.cast_signed())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

fn read_order(row: &SqliteRow) -> Result<Order, StoreError> {
    Ok(Order { sequence: unsigned(row.try_get("sequence")?)?, signed: row.try_get("signed")? })
}

/// Takes the next number and stores the order that `sign` makes with it; a publication that has one already needs no other.
async fn order(
    change: &mut SqliteConnection,
    publication: &str,
    owner: i64,
    network: &str,
    deleted: i64,
    sign: impl FnOnce(u64) -> Result<String, SigningError>,
) -> Result<(), StoreError> {
    let row = sqlx::query(
        "INSERT INTO deletions (publication, owner, network, deleted, signed) VALUES (?, ?, ?, ?, '')
         ON CONFLICT DO NOTHING RETURNING sequence",
    )
    .bind(publication)
    .bind(owner)
    .bind(network)
    .bind(deleted)
    .fetch_optional(&mut *change)
    .await?;
    let Some(row) = row else { return Ok(()) };
    let sequence: i64 = row.try_get("sequence")?;
    let signed = sign(unsigned(sequence)?)?;
    sqlx::query("UPDATE deletions SET signed = ? WHERE sequence = ?")
        .bind(signed)
        .bind(sequence)
        .execute(change)
        .await?;
    Ok(())
}

const UNREADABLE: StoreError = StoreError::Unreadable("sequence number");

fn signed(sequence: u64) -> Result<i64, StoreError> {
    i64::try_from(sequence).map_err(|_| UNREADABLE)
}

fn unsigned(sequence: i64) -> Result<u64, StoreError> {
    u64::try_from(sequence).map_err(|_| UNREADABLE)
}

#[cfg(test)]
mod tests {
    use super::super::contents::tests::{Fixture, ID, fixture, stored};
    use super::*;
    use crate::catalogue::{ContentName, State};
    use serde_json::json;

    async fn delete(fixture: &Fixture, publication: &str) -> Result<(), StoreError> {
        let sign = |sequence: u64| Ok(format!("order {sequence}"));
        fixture.store.delete(publication, fixture.ada, 7, sign).await
    }

    async fn numbers(fixture: &Fixture, node: &str) -> Vec<u64> {
        let orders = fixture.store.undelivered("00", node, 10).await.unwrap();
        orders.into_iter().map(|order| order.sequence).collect()
    }

    #[tokio::test]
    async fn a_content_goes_and_its_order_is_there_in_one_change() {
        let fixture = fixture().await;
        fixture.store.complete(ID, &stored()).await.unwrap();
        fixture.store.publish(ID).await.unwrap();
        delete(&fixture, ID).await.unwrap();
        assert!(fixture.store.find(&ContentName::Publication(ID.into())).await.unwrap().is_empty());
        assert!(fixture.store.fragments(ID).await.unwrap().is_empty());
        assert_eq!(fixture.store.index_block(&stored().content_key).await.unwrap(), None);
        assert!(fixture.store.has_deleted(fixture.ada, ID).await.unwrap());
        assert!(!fixture.store.has_deleted(fixture.ada + 1, ID).await.unwrap());
        let order = Order { sequence: 1, signed: "order 1".into() };
        assert_eq!(fixture.store.undelivered("00", "a", 10).await.unwrap(), [order]);
        assert!(fixture.store.undelivered("01", "a", 10).await.unwrap().is_empty(), "another network");
        assert!(matches!(delete(&fixture, ID).await, Err(StoreError::WrongState)), "once");
    }

    #[tokio::test]
    async fn an_order_that_cannot_be_signed_deletes_nothing() {
        let fixture = fixture().await;
        let sign = |sequence| Err(SigningError::Sequence(sequence));
        assert!(fixture.store.delete(ID, fixture.ada, 7, sign).await.is_err());
        assert!(matches!(
            fixture.store.delete(ID, fixture.ada + 1, 7, |_| Ok(String::new())).await,
            Err(StoreError::WrongState)
        ));
        assert_eq!(fixture.one().await.publication, ID);
        assert!(numbers(&fixture, "a").await.is_empty());
    }

    #[tokio::test]
    async fn what_is_given_up_has_its_order_and_needs_no_other_when_it_is_deleted() {
        let fixture = fixture().await;
        let content = fixture.one().await;
        let sign = |sequence: u64| Ok(format!("order {sequence}"));
        fixture.store.reject_and_order(&content, &json!({}), 7, sign).await.unwrap();
        assert_eq!(fixture.one().await.state, State::Rejected);
        assert_eq!(numbers(&fixture, "a").await, [1]);
        delete(&fixture, ID).await.unwrap();
        assert!(fixture.store.has_deleted(fixture.ada, ID).await.unwrap());
        assert_eq!(numbers(&fixture, "a").await, [1]);
        // The number that the second attempt did not need may be left out.
        fixture.register("e").await;
        delete(&fixture, "e").await.unwrap();
        assert!(numbers(&fixture, "a").await[1] > 1);
    }

    #[tokio::test]
    async fn numbers_rise_and_each_node_gets_what_it_lacks() {
        let fixture = fixture().await;
        delete(&fixture, ID).await.unwrap();
        for sequence in 2..=4 {
            let publication = format!("{sequence:032x}");
            fixture.register(&publication).await;
            delete(&fixture, &publication).await.unwrap();
        }
        assert_eq!(numbers(&fixture, "a").await, [1, 2, 3, 4]);
        fixture.store.note_delivered("00", "a", 3).await.unwrap();
        fixture.store.note_delivered("00", "a", 2).await.unwrap();
        assert_eq!(numbers(&fixture, "a").await, [4]);
        assert_eq!(numbers(&fixture, "b").await, [1, 2, 3, 4], "each for itself");
        assert_eq!(fixture.store.undelivered("00", "b", 2).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn what_a_node_was_brought_is_asked_for_once_for_each_of_its_starts() {
        let fixture = fixture().await;
        for sequence in 1..=4 {
            let publication = format!("{sequence:032x}");
            fixture.register(&publication).await;
            delete(&fixture, &publication).await.unwrap();
        }
        let (store, confirmed) = (&fixture.store, fixture.store.confirmed_start("00", "a"));
        assert_eq!(confirmed.await.unwrap(), None);
        assert!(store.delivered("00", "a", 0, 9).await.unwrap().is_empty());
        // A node that says that it was started when nothing was brought yet.
        store.note_confirmed("00", "a", u64::MAX).await.unwrap();
        assert_eq!(numbers(&fixture, "a").await, [1, 2, 3, 4], "is brought everything");
        store.note_delivered("00", "a", 3).await.unwrap();
        assert_eq!(store.confirmed_start("00", "a").await.unwrap(), Some(u64::MAX));
        store.note_confirmed("00", "a", 17).await.unwrap();
        assert_eq!(store.confirmed_start("00", "a").await.unwrap(), Some(17));
        assert_eq!(numbers(&fixture, "a").await, [4]);
        for (after, limit, expected) in [(0, 9, &[1, 2, 3][..]), (1, 1, &[2]), (2, 9, &[3]), (3, 9, &[])] {
            let orders = store.delivered("00", "a", after, limit).await.unwrap();
            assert_eq!(orders.into_iter().map(|order| order.sequence).collect::<Vec<_>>(), expected);
        }
        assert_eq!(store.confirmed_start("00", "b").await.unwrap(), None, "each for itself");
    }

    #[tokio::test]
    async fn the_index_block_stays_while_another_publication_needs_it() {
        let fixture = fixture().await;
        let other = "e".repeat(32);
        fixture.register(&other).await;
        for publication in [ID, &other] {
            fixture.store.complete(publication, &stored()).await.unwrap();
        }
        delete(&fixture, ID).await.unwrap();
        assert!(fixture.store.index_block(&stored().content_key).await.unwrap().is_some());
        assert_eq!(fixture.store.fragments(&other).await.unwrap(), stored().fragments);
        delete(&fixture, &other).await.unwrap();
        assert_eq!(fixture.store.index_block(&stored().content_key).await.unwrap(), None);
    }
}
