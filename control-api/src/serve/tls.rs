//! A listener's certificate, from two files that may be exchanged while it serves.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig, version};
use zeroize::Zeroizing;

/// More than any certificate chain or key has; a mistaken path to a video is not read whole.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Others than the owner and the file's group may do nothing with a key, and the group may not change it. Certbot's group
/// `ssl-cert`, or a daemon's own, may read.
const FORBIDDEN_MODE: u32 = 0o027;

/// The protocols that a client may choose by ALPN (RFC 7301), ours first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A certificate with its key for TLS 1.2 and 1.3, and the files that it comes from.
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

/// Files that cannot be used. No message holds anything of a key.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that is too long for what it should be.
    #[error("{0} is larger than 1 MiB; it should be a PEM file")]
    TooLarge(PathBuf),
    /// The key's mode.
    #[error(
        "{path} has mode {mode:03o}: anybody on this machine could read or change the key; set it with `chmod 600 {path}`"
    )]
    Unprotected {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file without what it should have.
    #[error("{path} has no {what} in PEM form (a line -----BEGIN {marker}-----)")]
    Missing {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// As it begins.
        marker: &'static str,
    },
    /// Key and certificate do not fit together, or are of a kind that is not understood.
    #[error("the certificate in {certificate} and the key in {key} cannot be used together: {source}")]
    Unusable {
        /// The chain's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

impl Certificate {
    /// Reads a chain (the listener's own certificate first) and its private key, both PEM.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let current = RwLock::new(Arc::new(load(certificate, key)?));
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// Reads both files again. Connections that come afterwards get the new certificate; on an error, the old one.
    pub fn reload(&self) -> Result<(), CertificateError> {
        let new = Arc::new(load(&self.certificate, &self.key)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// What a new connection is served with.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn load(certificate: &Path, key: &Path) -> Result<ServerConfig, CertificateError> {
    let chain = read_chain(certificate)?;
    let secret = read_key(key)?;
    let unusable = |source| CertificateError::Unusable { certificate: certificate.into(), key: key.into(), source };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(unusable)?;
    let mut config = versions.with_no_client_auth().with_single_cert(chain, secret).map_err(unusable)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    // A viewer who comes back resumes without the signature, and the node remembers nothing for it.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(unusable)?;
    Ok(config)
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = read(path, |_| Ok(()))?;
    let missing = || CertificateError::Missing { path: path.into(), what: "certificate", marker: "CERTIFICATE" };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| missing())?;
    if chain.is_empty() { Err(missing()) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let protected = |mode: u32| match mode & FORBIDDEN_MODE {
        0 => Ok(()),
        _ => Err(CertificateError::Unprotected { path: path.into(), mode: mode & 0o777 }),
    };
    let pem = read(path, protected)?;
    // The cause could quote the file.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| CertificateError::Missing {
        path: path.into(),
        what: "private key",
        marker: "PRIVATE KEY",
    })
}

/// Reads a file whose mode `check` allows; of the open file, so that it cannot be another one by then.
fn read(
    path: &Path,
    check: impl FnOnce(u32) -> Result<(), CertificateError>,
) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let failed = |source| CertificateError::Read { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check(metadata.permissions().mode())?;
    // With room for all of it at once: growing would leave copies of a key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len().min(MAX_FILE_BYTES) as usize + 1));
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES { Err(CertificateError::TooLarge(path.into())) } else { Ok(bytes) }
}
