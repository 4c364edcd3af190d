//! The database: one SQLite file, read and written through sqlx. Queries only; the rules are in `catalogue`.

mod contents;
mod deletions;
mod receipts;
mod users;

use std::path::Path;
use std::time::Duration;

use sqlx::SqlSafeStr;
use sqlx::SqlitePool;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

pub use contents::{Content, Fragment, NewContent, Stored};
pub use deletions::Order;
pub use receipts::{LogMark, Served, ServedSums};
pub use users::{GUEST, User};

/// SQLite has one writer; more connections than this only queue for it, while reads go on beside it in WAL mode.
const CONNECTIONS: u32 = 8;
/// How long a writer waits for another process (`user add` beside `run`) to finish.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The database. Cloning shares the connections.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    /// One connection whose commits are on disk when they return, with those of `pool` before them.
    durable: SqlitePool,
}

/// Why the database did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be made or protected.
    #[error("cannot prepare the database file: {0}")]
    File(#[from] std::io::Error),
    /// A query failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema cannot be brought to this version.
    #[error("the database cannot be brought to this version of imira-platform: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row holds what no version of this program writes.
    #[error("the database holds a {0} that this version cannot read")]
    Unreadable(&'static str),
    /// A user of this name is there already.
    #[error("there is a user of this name already; choose another name")]
    NameTaken,
    /// An order could not be signed.
    #[error("the deletion order cannot be signed: {0}")]
    Signing(#[from] control_api::SigningError),
    /// The content has moved to another state meanwhile.
    #[error("the content is no longer in the state that this change starts from")]
    WrongState,
}

impl Store {
    /// Opens the file, makes it (mode 0600) when it is missing, and brings the schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        create_private(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // In WAL mode NORMAL survives a crash of the program; a power cut may cost the last commits, which the
            // watcher learns anew from the node. FULL would sync at each step of each progress bar.
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let durable = options.clone().synchronous(SqliteSynchronous::Full);
        let durable = SqlitePoolOptions::new().max_connections(1).connect_lazy_with(durable);
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await?;
        migrations().run(&pool).await?;
        Ok(Self { pool, durable })
    }

    /// Ends all connections, so that the WAL is folded into the file.
    pub async fn close(&self) {
        self.durable.close().await;
        self.pool.close().await;
    }
}

fn migrations() -> Migrator {
    let catalogue = include_str!("../../migrations/0001_catalogue.sql").into_sql_str();
    let deletions = include_str!("../../migrations/0002_deletions.sql").into_sql_str();
    let restarts = include_str!("../../migrations/0003_restarts.sql").into_sql_str();
    let receipts = include_str!("../../migrations/0004_receipts.sql").into_sql_str();
    Migrator::with_migrations(vec![
        Migration::new(1, "catalogue".into(), MigrationType::Simple, catalogue, false),
        Migration::new(2, "deletions".into(), MigrationType::Simple, deletions, false),
        Migration::new(3, "restarts".into(), MigrationType::Simple, restarts, false),
        Migration::new(4, "receipts".into(), MigrationType::Simple, receipts, false),
    ])
}

/// Makes the file before SQLite does, because SQLite would take the umask, and gives the WAL the same mode.
fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}
