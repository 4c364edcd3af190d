//! Users, their custodial keys and their sessions.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError};

/// The name of the row whose custodial key stands for viewers who are not signed in.
pub const GUEST: &str = "guest";

/// Sessions of one user; the oldest goes when another begins.
const MAX_SESSIONS_PER_USER: i64 = 100;

/// Somebody who may sign in, or the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Row id.
    pub id: i64,
    /// Unique name.
    pub name: String,
}

impl Store {
    /// Adds a user with the SHA-256 of an API key (none for the guest) and a custodial key as PKCS#8 DER.
    pub async fn add_user(
        &self,
        name: &str,
        api_key_sha256: Option<&[u8]>,
        private_key_pkcs8: &[u8],
        now: i64,
    ) -> Result<(), StoreError> {
        let added = sqlx::query(
            "INSERT INTO users (name, api_key_sha256, private_key_pkcs8, created) VALUES (?, ?, ?, ?)
             ON CONFLICT (name) DO NOTHING",
        )
        .bind(name)
        .bind(api_key_sha256)
        .bind(private_key_pkcs8)
        .bind(now)
        .execute(&self.pool)
        .await?;
        if added.rows_affected() == 0 { Err(StoreError::NameTaken) } else { Ok(()) }
    }

    /// The user of this name.
    pub async fn user_by_name(&self, name: &str) -> Result<Option<User>, StoreError> {
        let row =
            sqlx::query("SELECT id, name FROM users WHERE name = ?").bind(name).fetch_optional(&self.pool).await?;
        row.as_ref().map(read_user).transpose()
    }

    /// The user whose API key has this SHA-256.
    pub async fn user_by_api_key(&self, sha256: &[u8]) -> Result<Option<User>, StoreError> {
        let row = sqlx::query("SELECT id, name FROM users WHERE api_key_sha256 = ?")
            .bind(sha256)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(read_user).transpose()
    }

    /// The custodial private key of a user, PKCS#8 DER.
    pub async fn private_key(&self, user: i64) -> Result<Vec<u8>, StoreError> {
        let row =
            sqlx::query("SELECT private_key_pkcs8 FROM users WHERE id = ?").bind(user).fetch_one(&self.pool).await?;
        Ok(row.try_get(0)?)
    }

    /// Begins a session, and forgets expired ones and the oldest of a user who has too many.
    pub async fn begin_session(
        &self,
        token_sha256: &[u8],
        user: i64,
        expires: i64,
        now: i64,
    ) -> Result<(), StoreError> {
        let mut change = self.pool.begin().await?;
        sqlx::query("DELETE FROM sessions WHERE expires <= ?").bind(now).execute(&mut *change).await?;
        sqlx::query(
            "DELETE FROM sessions WHERE token_sha256 IN
             (SELECT token_sha256 FROM sessions WHERE user = ? ORDER BY expires DESC LIMIT -1 OFFSET ?)",
        )
        .bind(user)
        .bind(MAX_SESSIONS_PER_USER - 1)
        .execute(&mut *change)
        .await?;
        sqlx::query("INSERT INTO sessions (token_sha256, user, expires) VALUES (?, ?, ?)")
            .bind(token_sha256)
            .bind(user)
            .bind(expires)
            .execute(&mut *change)
            .await?;
        change.commit().await?;
        Ok(())
    }

    /// The user of a session that has not expired.
    pub async fn user_by_session(&self, token_sha256: &[u8], now: i64) -> Result<Option<User>, StoreError> {
        let row = sqlx::query(
            "SELECT users.id, users.name FROM sessions JOIN users ON users.id = sessions.user
             WHERE token_sha256 = ? AND expires > ?",
        )
        .bind(token_sha256)
        .bind(now)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(read_user).transpose()
    }

    /// Ends a session; nothing happens when there is none.
    pub async fn end_session(&self, token_sha256: &[u8]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE token_sha256 = ?").bind(token_sha256).execute(&self.pool).await?;
        Ok(())
    }
}

fn read_user(row: &SqliteRow) -> Result<User, StoreError> {
    Ok(User { id: row.try_get(0)?, name: row.try_get(1)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("platform.db")).await.unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn names_and_keys_are_unique_to_a_user() {
        let (_folder, store) = store().await;
        store.add_user("ada", Some(&[1; 32]), b"key", 1).await.unwrap();
        let again = store.add_user("ada", Some(&[2; 32]), b"key", 1).await;
        assert!(matches!(again, Err(StoreError::NameTaken)));
        let ada = store.user_by_api_key(&[1; 32]).await.unwrap().unwrap();
        assert_eq!(ada.name, "ada");
        assert_eq!(store.private_key(ada.id).await.unwrap(), b"key");
        assert_eq!(store.user_by_api_key(&[2; 32]).await.unwrap(), None);
    }

    #[tokio::test]
    async fn nobody_signs_in_as_the_guest() {
        let (_folder, store) = store().await;
        store.add_user(GUEST, None, b"key", 1).await.unwrap();
        assert!(store.user_by_name(GUEST).await.unwrap().is_some());
        assert_eq!(store.user_by_api_key(&[]).await.unwrap(), None);
    }

    #[tokio::test]
    async fn sessions_expire_end_and_are_bounded() {
        let (_folder, store) = store().await;
        store.add_user("ada", Some(&[1; 32]), b"key", 1).await.unwrap();
        let ada = store.user_by_name("ada").await.unwrap().unwrap();
        store.begin_session(&[7; 32], ada.id, 100, 10).await.unwrap();
        assert!(store.user_by_session(&[7; 32], 99).await.unwrap().is_some());
        assert!(store.user_by_session(&[7; 32], 100).await.unwrap().is_none());
        store.end_session(&[7; 32]).await.unwrap();
        assert!(store.user_by_session(&[7; 32], 99).await.unwrap().is_none());
        for n in 0..120_u8 {
            store.begin_session(&[n; 32], ada.id, 1000 + i64::from(n), 10).await.unwrap();
        }
        assert!(store.user_by_session(&[0; 32], 20).await.unwrap().is_none());
        assert!(store.user_by_session(&[119; 32], 20).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn the_file_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, _store) = store().await;
        let mode = std::fs::metadata(folder.path().join("platform.db")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
