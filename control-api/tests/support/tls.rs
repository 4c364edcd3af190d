//! Certificates for localhost, and clients that trust them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use control_api::{Certificate, ServeOptions};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A certificate that signs itself, and its key, in files as an operator has them.
pub struct Files {
    pub folder: tempfile::TempDir,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Self { certificate: folder.path().join("chain.pem"), key: folder.path().join("key.pem"), folder };
        files.renew();
        files
    }

    /// Puts another pair in the place of the one that is there; the certificate, for those who are to trust it.
    pub fn renew(&self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&self.certificate, made.cert.pem()).unwrap();
        write_key(&self.key, &made.key_pair.serialize_pem());
        made.cert.der().clone()
    }

    pub fn open(&self) -> Arc<Certificate> {
        Arc::new(Certificate::open(&self.certificate, &self.key).unwrap())
    }

    pub fn options(&self) -> ServeOptions {
        ServeOptions { certificate: Some(self.open()), ..ServeOptions::default() }
    }
}

pub fn write_key(path: &Path, pem: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, pem).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A connection whose client trusts `root` and offers these protocols.
pub async fn connect(
    port: u16,
    root: CertificateDer<'static>,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await
}
