//! Certificates of registries, where podman and skopeo keep them: containers-certs.d(5).
//!
//! ```text
//! --cert-dir DIR                                  alone, when given
//! ~/.config/containers/certs.d/HOST[:PORT]        else the first of these that has files
//! /etc/containers/certs.d/HOST[:PORT]
//! /etc/docker/certs.d/HOST[:PORT]
//!   *.crt             authorities, beside those of the system
//!   *.cert, *.key     a client certificate and its key, by one name
//! ```

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::files::Files;
use crate::error::{Error, Result};

/// What decides which directories are read; the shell fills it.
#[derive(Debug, Clone, Default)]
pub struct CertDirs {
    /// `HOME`
    pub home: Option<PathBuf>,
    /// `--cert-dir`
    pub cert_dir: Option<PathBuf>,
}

/// The certificates that are configured for one registry.
#[derive(Debug, Default)]
pub struct HostCerts {
    /// Authorities, beside those of the system.
    pub authorities: Vec<CertificateDer<'static>>,
    /// What we show it.
    pub client: Option<ClientPair>,
}

/// A client certificate and its key.
pub struct ClientPair {
    /// The certificate and those above it.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// The file of the certificate.
    pub file: PathBuf,
}

impl std::fmt::Debug for ClientPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientPair").field("file", &self.file).finish_non_exhaustive()
    }
}

impl CertDirs {
    /// Reads the certificates for a registry.
    ///
    /// # Errors
    /// [`Error::Unavailable`] that names a file without a certificate or key, or a pair of which one is missing.
    pub fn read(&self, registry: &str, files: &Files) -> Result<HostCerts> {
        let mut certs = HostCerts::default();
        let mut paths =
            self.dirs(registry).iter().map(|dir| files.list(dir)).find(|paths| !paths.is_empty()).unwrap_or_default();
        paths.sort();
        for path in &paths {
            let counterpart = |extension| files.read(&path.with_extension(extension));
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => certs.authorities.extend(certificates(path, &read(path, files)?)?),
                Some("cert") => {
                    let key = counterpart("key").ok_or_else(|| bad(path, "has no .key file beside it"))?;
                    let key = PrivateKeyDer::from_pem_slice(&key)
                        .map_err(|_| bad(&path.with_extension("key"), "holds no private key in PEM"))?;
                    let chain = certificates(path, &read(path, files)?)?;
                    certs.client.get_or_insert(ClientPair { chain, key, file: path.clone() });
                }
                Some("key") if counterpart("cert").is_none() => {
                    return Err(bad(path, "has no .cert file beside it"));
                }
                _ => {}
            }
        }
        Ok(certs)
    }

    fn dirs(&self, registry: &str) -> Vec<PathBuf> {
        if let Some(dir) = &self.cert_dir {
            return vec![dir.clone()];
        }
        let user = self.home.as_ref().map(|home| home.join(".config/containers/certs.d"));
        let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        user.into_iter().chain(system).map(|dir| dir.join(registry)).collect()
    }
}

fn read(path: &Path, files: &Files) -> Result<Vec<u8>> {
    files.read(path).ok_or_else(|| bad(path, "cannot be read"))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| bad(path, "holds no certificate in PEM"))
}

fn bad(path: &Path, reason: &str) -> Error {
    Error::Unavailable { reason: format!("{} {reason}", path.display()), hint: None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

    /// Files, directories, number of authorities, file of the client certificate.
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a CertDirs, usize, Option<&'a str>);

    #[test]
    fn certificates_are_found_by_registry() {
        let dirs = CertDirs { home: Some("/home/u".into()), cert_dir: None };
        let named = CertDirs { cert_dir: Some("/given".into()), ..dirs.clone() };
        let two = PEM.repeat(2);
        let cases: &[Case] = &[
            (&[], &dirs, 0, None),
            (&[("/etc/containers/certs.d/r:5000/ca.crt", PEM)], &dirs, 1, None),
            (&[("/etc/containers/certs.d/other/ca.crt", PEM)], &dirs, 0, None),
            (&[("/etc/docker/certs.d/r:5000/a.crt", PEM), ("/etc/docker/certs.d/r:5000/b.crt", &two)], &dirs, 3, None),
            (
                &[
                    ("/home/u/.config/containers/certs.d/r:5000/c.cert", PEM),
                    ("/home/u/.config/containers/certs.d/r:5000/c.key", KEY),
                    ("/etc/containers/certs.d/r:5000/ca.crt", PEM),
                ],
                &dirs,
                0,
                Some("/home/u/.config/containers/certs.d/r:5000/c.cert"),
            ),
            (&[("/given/ca.crt", PEM), ("/etc/containers/certs.d/r:5000/b.crt", &two)], &named, 1, None),
        ];
        for (files, dirs, authorities, client) in cases {
            let certs = dirs.read("r:5000", &Files::of(files)).unwrap();
            assert_eq!(certs.authorities.len(), *authorities, "{files:?}");
            assert_eq!(certs.client.map(|c| c.file), client.map(PathBuf::from), "{files:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let dirs = CertDirs { home: None, cert_dir: Some("/d".into()) };
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("/d/a.crt", "junk")], "/d/a.crt holds no certificate in PEM"),
            (&[("/d/a.cert", PEM)], "/d/a.cert has no .key file beside it"),
            (&[("/d/a.key", KEY)], "/d/a.key has no .cert file beside it"),
            (&[("/d/a.cert", PEM), ("/d/a.key", "junk")], "/d/a.key holds no private key in PEM"),
        ];
        for (files, text) in cases {
            assert_eq!(dirs.read("r", &Files::of(files)).unwrap_err().to_string(), *text);
        }
    }
}
