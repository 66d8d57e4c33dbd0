//! A certificate and its key, checked before anything is served with them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, InconsistentKeys, ServerConfig};

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file could not be read or is no PEM.
    #[error("{}: {what}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What was found.
        source: pem::Error,
    },
    /// A file of certificates has none.
    #[error("{}: no certificate in it: expected PEM with `BEGIN CERTIFICATE`, the server's own first", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The key is not that of the certificate.
    #[error("the key in {} does not fit the first certificate in {}: expected the key that it was made for", key.display(), cert.display())]
    Mismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// They can not be used.
    #[error("certificate {} and key {}: {source}", cert.display(), key.display())]
    Unusable {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// What a server proves itself with.
#[derive(Clone)]
pub struct Tls(Arc<ServerConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads a chain of certificates, the server's own first, and its key, both PEM. TLS 1.2 and 1.3 are spoken.
    ///
    /// # Errors
    /// A file that can not be read, is no PEM, or lacks what it should hold; a key that does not fit.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let wrong = |path: &Path, what| {
            let path = path.to_owned();
            move |source| TlsError::Read { path, what, source }
        };
        let certs = CertificateDer::pem_file_iter(cert).map_err(wrong(cert, "reading certificates"))?;
        let certs: Vec<_> = certs
            .collect::<Result<_, _>>()
            .map_err(wrong(cert, "reading certificates"))?;
        if certs.is_empty() {
            return Err(TlsError::Empty {
                path: cert.to_owned(),
            });
        }
        let private = PrivateKeyDer::from_pem_file(key).map_err(wrong(key, "reading the private key"))?;
        let (cert, key) = (cert.to_owned(), key.to_owned());
        config(certs, private).map(Self).map_err(|source| match source {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { cert, key }
            }
            source => TlsError::Unusable { cert, key, source },
        })
    }

    /// Takes connections.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0))
    }
}

fn config(
    certs: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(certs, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
