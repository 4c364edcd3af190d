//! What nodes say that they served: sums, and how far each node's log is in them.

use sqlx::{Row, SqliteConnection};

use super::{Store, StoreError};

/// How far a node's log is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogMark {
    /// Number of the last receipt.
    pub through: u64,
    /// SHA-256 of its text.
    pub last_hash: [u8; 32],
}

/// One checked receipt, as far as it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The publication, if the node said which.
    pub publication: Option<String>,
    /// The content.
    pub content_key: String,
    /// Bytes of bodies.
    pub bytes: u64,
    /// How long they play; 0 for a preview.
    pub played_ms: u64,
    /// 1 if the film was begun; 0 for a preview.
    pub views: u64,
}

/// The sums of a publication over all nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServedSums {
    /// Bytes of bodies.
    pub bytes: u64,
    /// How long they play.
    pub played_ms: u64,
    /// How often the film was begun.
    pub views: u64,
}

impl Store {
    /// How far a log is counted.
    pub async fn receipt_mark(&self, node: &str, log: &str) -> Result<Option<LogMark>, StoreError> {
        let row = sqlx::query("SELECT through, last_hash FROM receipt_logs WHERE node = ? AND log = ?")
            .bind(node)
            .bind(log)
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let hash: Vec<u8> = row.try_get("last_hash")?;
        Ok(Some(LogMark {
            through: number(row.try_get("through")?),
            last_hash: hash.try_into().map_err(|_| StoreError::Unreadable("hash of a receipt"))?,
        }))
    }

    /// Counts receipts that follow `before` in a log, and notes that they are counted, in one change. It is on disk when this returns, for
    /// then the node may forget them.
    ///
    /// [`StoreError::WrongState`] if the log is not counted up to `before` (any more).
    pub async fn count_receipts(
        &self,
        node: &str,
        log: &str,
        before: Option<&LogMark>,
        receipts: &[Served],
        after: &LogMark,
    ) -> Result<(), StoreError> {
        let mut change = self.durable.begin().await?;
        let changed = match before {
            Some(before) => sqlx::query(
                "UPDATE receipt_logs SET through = ?3, last_hash = ?4 WHERE node = ?1 AND log = ?2 AND through = ?5",
            )
            .bind(node)
            .bind(log)
            .bind(signed(after.through))
            .bind(after.last_hash.as_slice())
            .bind(signed(before.through))
            .execute(&mut *change)
            .await?,
            None => sqlx::query(
                "INSERT INTO receipt_logs (node, log, through, last_hash) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(node)
            .bind(log)
            .bind(signed(after.through))
            .bind(after.last_hash.as_slice())
            .execute(&mut *change)
            .await?,
        };
        if changed.rows_affected() != 1 {
            return Err(StoreError::WrongState);
        }
        for receipt in receipts {
            count(&mut change, node, receipt).await?;
        }
        change.commit().await?;
        Ok(())
    }

    /// What was served of a publication.
    pub async fn served(&self, publication: &str) -> Result<ServedSums, StoreError> {
        let row = sqlx::query(
            "SELECT coalesce(sum(bytes), 0) AS bytes, coalesce(sum(played_ms), 0) AS played_ms,
                    coalesce(sum(views), 0) AS views FROM served WHERE publication = ?",
        )
        .bind(publication)
        .fetch_one(&self.pool)
        .await?;
        Ok(ServedSums {
            bytes: number(row.try_get("bytes")?),
            played_ms: number(row.try_get("played_ms")?),
            views: number(row.try_get("views")?),
        })
    }
}

/// Adds a receipt to the publication that it names, or else to the oldest one of its content. One that nobody knows is of no content of
/// this platform, and counts for nothing.
async fn count(change: &mut SqliteConnection, node: &str, receipt: &Served) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO served (publication, node, bytes, played_ms, views)
         SELECT publication, ?3, ?4, ?5, ?6 FROM (
             SELECT publication, 0 AS place FROM contents WHERE publication = ?1
             UNION ALL SELECT publication, 1 FROM deletions WHERE publication = ?1
             UNION ALL SELECT publication, 1 + sequence FROM contents WHERE ?1 IS NULL AND content_key = ?2
         ) ORDER BY place LIMIT 1
         ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes, played_ms = played_ms + excluded.played_ms,
             views = views + excluded.views",
    )
    .bind(&receipt.publication)
    .bind(&receipt.content_key)
    .bind(node)
    .bind(signed(receipt.bytes))
    .bind(signed(receipt.played_ms))
    .bind(signed(receipt.views))
    .execute(change)
    .await?;
    Ok(())
}

/// A node may claim any number; sums of these do not wrap, for [`MOST`] of them fit.
fn signed(number: u64) -> i64 {
    i64::try_from(number.min(MOST)).unwrap_or(i64::MAX)
}

/// A tebibyte, or 35 years: more than a receipt of ten seconds honestly says. Eight million of these fit in SQLite's integers.
const MOST: u64 = 1 << 40;

fn number(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::contents::tests::{ID, fixture, stored};
    use super::*;

    fn receipt(publication: Option<&str>, bytes: u64) -> Served {
        let publication = publication.map(str::to_owned);
        Served { publication, content_key: stored().content_key, bytes, played_ms: 5, views: 1 }
    }

    fn mark(through: u64) -> LogMark {
        LogMark { through, last_hash: [through as u8; 32] }
    }

    #[tokio::test]
    async fn a_batch_is_counted_with_its_mark_or_not_at_all() {
        let fixture = fixture().await;
        let store = &fixture.store;
        assert_eq!(store.receipt_mark("n", "l").await.unwrap(), None);
        let batch = [receipt(Some(ID), 10), receipt(Some(ID), 1)];
        store.count_receipts("n", "l", None, &batch, &mark(2)).await.unwrap();
        // The same again, as after a lost answer.
        let again = store.count_receipts("n", "l", None, &batch, &mark(2)).await;
        assert!(matches!(again, Err(StoreError::WrongState)));
        assert_eq!(store.served(ID).await.unwrap(), ServedSums { bytes: 11, played_ms: 10, views: 2 });
        assert_eq!(store.receipt_mark("n", "l").await.unwrap(), Some(mark(2)));
        store.count_receipts("n", "l", Some(&mark(2)), &batch[1..], &mark(3)).await.unwrap();
        assert!(store.count_receipts("n", "l", Some(&mark(2)), &batch[1..], &mark(3)).await.is_err());
        store.count_receipts("n", "other log", None, &batch[1..], &mark(1)).await.unwrap();
        store.count_receipts("other node", "l", None, &batch[1..], &mark(1)).await.unwrap();
        assert_eq!(store.served(ID).await.unwrap().bytes, 14);
    }

    #[tokio::test]
    async fn a_receipt_without_publication_is_the_oldest_ones_and_a_strangers_is_nobodys() {
        let fixture = fixture().await;
        let store = &fixture.store;
        let other = "f".repeat(32);
        fixture.register(&other).await;
        for publication in [ID, &other] {
            store.complete(publication, &stored()).await.unwrap();
        }
        let batch = [receipt(None, 3), receipt(Some(&other), 4), receipt(Some(&"9".repeat(32)), 5)];
        store.count_receipts("n", "l", None, &batch, &mark(3)).await.unwrap();
        assert_eq!([store.served(ID).await.unwrap().bytes, store.served(&other).await.unwrap().bytes], [3, 4]);
        assert_eq!(store.served(&"9".repeat(32)).await.unwrap(), ServedSums::default());
    }

    #[tokio::test]
    async fn what_a_node_claims_does_not_wrap() {
        let fixture = fixture().await;
        let batch = vec![receipt(Some(ID), u64::MAX); 100];
        fixture.store.count_receipts("n", "l", None, &batch, &mark(100)).await.unwrap();
        assert_eq!(fixture.store.served(ID).await.unwrap().bytes, 100 * MOST);
    }
}
