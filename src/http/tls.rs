//! Certificates: the operator's, or a self-signed one that is made once and kept.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsSource;

/// Apple's systems refuse certificates that are valid for more than 825 days.
const VALID_FOR: Duration = Duration::from_secs(825 * 24 * 3600);
/// A kept certificate of this age is replaced at the next start.
const RENEW_AFTER: Duration = Duration::from_secs(700 * 24 * 3600);
/// Clocks of clients may be behind ours.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

/// Why there is no certificate. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("the TLS file {path:?} cannot be read ({source}): check its name and permissions")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No certificate in the file.
    #[error("{0:?} is no PEM certificate: --tls-cert wants a file with BEGIN CERTIFICATE")]
    Certificate(PathBuf),
    /// No key in the file.
    #[error("{0:?} is no PEM private key: --tls-key wants a file with BEGIN PRIVATE KEY")]
    Key(PathBuf),
    /// They do not fit.
    #[error(
        "{cert:?} and {key:?} cannot be used together ({source}): the key has to be that of the certificate"
    )]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The self-signed certificate cannot be kept.
    #[error(
        "the self-signed certificate cannot be kept in {dir:?} ({source}): choose a writable --data-dir"
    )]
    Keep {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The self-signed certificate cannot be made.
    #[error("a self-signed certificate cannot be made ({0}): give --tls-cert and --tls-key")]
    Make(#[from] rcgen::Error),
}

/// The TLS side of the listener. A self-signed certificate is made if there is none.
pub fn server_config(source: &TlsSource) -> Result<Arc<ServerConfig>, TlsError> {
    match source {
        TlsSource::Files { cert, key } => load(cert, key),
        TlsSource::SelfSigned(dir) => {
            let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
            if is_fresh(&cert)
                && key.exists()
                && let Ok(config) = load(&cert, &key)
            {
                return Ok(config);
            }
            make(dir, &cert, &key)?;
            load(&cert, &key)
        }
    }
}

fn load(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(cert)?)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::Certificate(cert.to_owned()))?;
    if chain.is_empty() {
        return Err(TlsError::Certificate(cert.to_owned()));
    }
    let secret =
        PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| TlsError::Key(key.to_owned()))?;
    let mismatch = |source| TlsError::Mismatch {
        cert: cert.to_owned(),
        key: key.to_owned(),
        source,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(mismatch)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(mismatch)?;
    // A WebSocket upgrade is HTTP/1.1 (RFC 6455, section 4.1).
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

fn is_fresh(cert: &Path) -> bool {
    let made = fs::metadata(cert).and_then(|m| m.modified());
    made.is_ok_and(|at| at.elapsed().unwrap_or_default() < RENEW_AFTER)
}

fn make(dir: &Path, cert: &Path, key: &Path) -> Result<(), TlsError> {
    let pair = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(local_names())?;
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let begin = rcgen::date_time_ymd(1970, 1, 1) + since_epoch.saturating_sub(BACKDATED);
    params.not_before = begin;
    params.not_after = begin + VALID_FOR;
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Talksy Unit");
    let signed = params.self_signed(&pair)?;
    fs::create_dir_all(dir)
        .and_then(|()| write_private(key, &pair.serialize_pem()))
        .and_then(|()| write_private(cert, &signed.pem()))
        .map_err(|source| TlsError::Keep {
            dir: dir.to_owned(),
            source,
        })
}

/// What a browser may have in its address bar to reach this machine.
fn local_names() -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".into(), "::1".into()];
    let addresses = local_addresses().into_iter().map(|ip| ip.to_string());
    for name in addresses {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The addresses of this machine's interfaces; none if they cannot be listed.
pub fn local_addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces.iter().map(|i| i.ip()).collect()
}

/// Readable by the owner only, from its first moment.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_certificate_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let source = TlsSource::SelfSigned(dir.path().join("deep"));
        server_config(&source).expect("made");
        let key = dir.path().join("deep/key.pem");
        let first = fs::read(&key).expect("kept");
        server_config(&source).expect("loaded");
        assert_eq!(fs::read(&key).expect("kept"), first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&key).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_spoilt_kept_certificate_is_replaced() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let source = TlsSource::SelfSigned(dir.path().to_owned());
        server_config(&source).expect("made");
        fs::write(dir.path().join("cert.pem"), "spoilt").expect("written");
        server_config(&source).expect("made again");
    }

    #[test]
    fn unusable_files_are_told_apart() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = |name: &str| dir.path().join(name);
        let files = |cert: &str, key: &str| TlsSource::Files {
            cert: file(cert),
            key: file(key),
        };
        let pem = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("made");
            (made.cert.pem(), made.signing_key.serialize_pem())
        };
        let ((cert, key), (_, other)) = (pem("a"), pem("b"));
        for (name, text) in [("cert", &cert), ("key", &key), ("other", &other)] {
            fs::write(file(name), text).expect("written");
        }
        assert!(server_config(&files("cert", "key")).is_ok());
        let error = |cert, key| {
            server_config(&files(cert, key))
                .map(|_| ())
                .expect_err("refused")
        };
        assert!(matches!(error("none", "key"), TlsError::Read { .. }));
        assert!(matches!(error("key", "key"), TlsError::Certificate(_)));
        assert!(matches!(error("cert", "cert"), TlsError::Key(_)));
        assert!(matches!(error("cert", "other"), TlsError::Mismatch { .. }));
    }
}
