//! What the platform keeps in its folder, and the commands that make it: `init` and `user add`.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use control_api::{KeyError, PlatformKey, PlatformKeySize, TokenError, UserKey};

use crate::config::Config;
use crate::secrets::{ApiKey, NoRandomness};
use crate::store::{GUEST, Store, StoreError};
use crate::time::now;

/// For the folder, which holds secrets.
const PRIVATE: u32 = 0o700;

/// Longest name of a user, in bytes.
const MAX_NAME: usize = 64;

/// The files of one platform.
#[derive(Debug, Clone)]
pub struct DataFolder(PathBuf);

/// Why a command could not be done.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Something is there already.
    #[error(
        "{0} is there already and is not overwritten: its loss would cut the platform off from its nodes; choose another folder, or move it away"
    )]
    Exists(PathBuf),
    /// The folder holds something else, perhaps somebody's sources, which the secrets would be published with.
    #[error(
        "{0} is there already and is not empty; a platform's folder holds secrets and nothing else: choose a name that is not taken"
    )]
    NotEmpty(PathBuf),
    /// The system refused.
    #[error("cannot write {path}: {cause}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The system refused.
    #[error("cannot read {path}: {cause}; `imira-platform init` makes it")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The platform's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A user's key.
    #[error(transparent)]
    UserKey(#[from] TokenError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// A name that cannot be used.
    #[error("`{0}` cannot be a user's name: 1 to 64 letters, digits, `.`, `_`, `-` or `@`, and not `guest`")]
    BadName(String),
}

impl DataFolder {
    /// The folder at `path`, which need not be there yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The platform's private key, PKCS#8 PEM.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.0.join("platform.key.pem")
    }

    /// The public key that nodes pin, SubjectPublicKeyInfo PEM.
    #[must_use]
    pub fn public_key(&self) -> PathBuf {
        self.0.join("platform.pub.pem")
    }

    /// The SQLite file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.0.join("platform.db")
    }

    /// Makes the folder (0700) with configuration, keys and database; refuses one in which something lies. Returns the
    /// fingerprint of the platform's key. Takes up to a second of processor time.
    pub async fn init(&self, config: &Config, size: PlatformKeySize) -> Result<String, SetupError> {
        for file in [self.config(), self.key(), self.public_key(), self.database()] {
            if file.exists() {
                return Err(SetupError::Exists(file));
            }
        }
        if !begin_folder(&self.0).map_err(|cause| SetupError::Write { path: self.0.clone(), cause })? {
            return Err(SetupError::NotEmpty(self.0.clone()));
        }
        let key = PlatformKey::generate(size)?;
        write_new(&self.key(), key.to_pkcs8_pem()?.as_bytes(), 0o600)?;
        write_new(&self.public_key(), key.public_key().to_pem()?.as_bytes(), 0o644)?;
        write_new(&self.config(), config.render().as_bytes(), 0o644)?;
        let store = Store::open(&self.database()).await?;
        ensure_guest(&store).await?;
        store.close().await;
        Ok(key.fingerprint().to_string())
    }

    /// Reads the platform's private key.
    pub fn load_key(&self) -> Result<PlatformKey, SetupError> {
        let path = self.key();
        let pem = std::fs::read_to_string(&path).map_err(|cause| SetupError::Read { path, cause })?;
        Ok(PlatformKey::from_pkcs8_pem(&zeroize::Zeroizing::new(pem))?)
    }

    /// Adds a user with a new custodial key, and returns the API key, which is stored nowhere.
    pub async fn add_user(&self, name: &str) -> Result<ApiKey, SetupError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) || name == GUEST {
            return Err(SetupError::BadName(name.to_owned()));
        }
        if !self.config().exists() {
            let cause = std::io::ErrorKind::NotFound.into();
            return Err(SetupError::Read { path: self.config(), cause });
        }
        let store = Store::open(&self.database()).await?;
        let api_key = ApiKey::generate()?;
        add(&store, name, Some(&api_key.sha256())).await?;
        store.close().await;
        Ok(api_key)
    }
}

/// The row id of the guest, who is made when missing.
pub(crate) async fn ensure_guest(store: &Store) -> Result<i64, SetupError> {
    if store.user_by_name(GUEST).await?.is_none() {
        match add(store, GUEST, None).await {
            // Another process was quicker, which is as good.
            Ok(()) | Err(SetupError::Store(StoreError::NameTaken)) => {}
            Err(error) => return Err(error),
        }
    }
    let guest = store.user_by_name(GUEST).await?;
    guest.map(|guest| guest.id).ok_or(SetupError::Store(StoreError::Unreadable("guest")))
}

/// Generating the custodial key takes a tenth of a second, which nothing else waits for in these commands.
async fn add(store: &Store, name: &str, api_key_sha256: Option<&[u8]>) -> Result<(), SetupError> {
    let der = UserKey::generate()?.to_pkcs8_der()?;
    Ok(store.add_user(name, api_key_sha256, &der, now()).await?)
}

/// Makes a folder for its owner alone, or shuts an empty one that is there; `false` where something lies in it.
fn begin_folder(path: &Path) -> std::io::Result<bool> {
    std::fs::DirBuilder::new().recursive(true).mode(PRIVATE).create(path)?;
    if std::fs::read_dir(path)?.next().is_some() {
        return Ok(false);
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(PRIVATE))?;
    Ok(true)
}

/// Writes a file that must not be there yet.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SetupError> {
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|cause| {
        let path = path.to_owned();
        if cause.kind() == std::io::ErrorKind::AlreadyExists {
            SetupError::Exists(path)
        } else {
            SetupError::Write { path, cause }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let listen = "127.0.0.1:0".parse().unwrap();
        Config::from_arguments(listen, None, &[format!("demo={}", "0".repeat(32))], &[]).unwrap()
    }

    #[tokio::test]
    async fn init_keeps_secrets_private_and_overwrites_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(parent.path().join("platform"));
        folder.init(&config(), PlatformKeySize::Rsa2048).await.unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.0), 0o700);
        assert_eq!(mode(&folder.key()), 0o600);
        assert_eq!(mode(&folder.database()), 0o600);
        let before = folder.load_key().unwrap().fingerprint();
        let again = folder.init(&config(), PlatformKeySize::Rsa2048).await;
        assert!(matches!(again, Err(SetupError::Exists(_))));
        assert_eq!(folder.load_key().unwrap().fingerprint(), before);
    }

    #[tokio::test]
    async fn a_folder_with_something_in_it_is_left_alone_and_an_empty_one_is_shut() {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(parent.path());
        std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let source = parent.path().join("Cargo.toml");
        std::fs::write(&source, "").unwrap();
        let refused = folder.init(&config(), PlatformKeySize::Rsa2048).await;
        assert!(matches!(refused, Err(SetupError::NotEmpty(_))), "{refused:?}");
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
        std::fs::remove_file(source).unwrap();
        folder.init(&config(), PlatformKeySize::Rsa2048).await.unwrap();
        assert_eq!(std::fs::metadata(parent.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn users_are_added_once_and_never_as_the_guest() {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(parent.path());
        assert!(matches!(folder.add_user("ada").await, Err(SetupError::Read { .. })), "before init");
        folder.init(&config(), PlatformKeySize::Rsa2048).await.unwrap();
        let key = folder.add_user("ada").await.unwrap();
        assert!(folder.add_user("ada").await.is_err());
        for name in ["guest", "", "a b", "ä"] {
            assert!(matches!(folder.add_user(name).await, Err(SetupError::BadName(_))), "{name}");
        }
        let store = Store::open(&folder.database()).await.unwrap();
        assert_eq!(store.user_by_api_key(&key.sha256()).await.unwrap().unwrap().name, "ada");
    }
}
