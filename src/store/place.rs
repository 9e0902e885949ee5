//! The other side of a copy: a reference with its transport, and how skopeo is told to reach it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Error, Result};

/// How a child opens its standard input again: as often as it likes, from the beginning.
const STDIN: &str = "/proc/self/fd/0";

/// Lets the children that are started from now on have a descriptor, and returns the path by which they open it.
pub(super) fn inherit(descriptor: &OwnedFd) -> io::Result<String> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

/// An auth.json that nothing shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Adds the entries of another one.
    pub(super) fn with(&self, other: &Self) -> Result<Self> {
        let read = |secret: &Self| -> Result<serde_json::Value> {
            serde_json::from_slice(&secret.0).map_err(|e| Error::damaged("the credentials", e))
        };
        let (mut both, other) = (read(self)?, read(other)?);
        if let (Some(auths), Some(more)) = (both["auths"].as_object_mut(), other["auths"].as_object()) {
            auths.extend(more.clone());
        }
        Ok(Self(both.to_string().into_bytes()))
    }

    /// Returns it as a file in memory, at its beginning; only the child that is given it has it.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn file(&self) -> Result<File> {
        let make = || -> io::Result<File> {
            let mut file = File::from(memfd_create("skillctl-auth", MFdFlags::MFD_CLOEXEC)?);
            file.write_all(&self.0)?;
            file.rewind()?;
            Ok(file)
        };
        make().map_err(Error::io("a file of credentials in memory"))
    }
}

/// The other side of a copy.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The reference with its transport: `docker://registry.example/acme/hr:1.0.0`.
    pub reference: String,
    /// What errors name: the registry's host, or the reference.
    pub host: String,
    /// `--authfile`
    pub authfile: Option<PathBuf>,
    /// Content of an auth.json that is on no disk, instead of `authfile`.
    pub credentials: Option<Secret>,
    /// `--cert-dir`
    pub cert_dir: Option<PathBuf>,
    /// `--tls-verify`
    pub tls_verify: Option<bool>,
}

impl Place {
    /// Returns a place that needs no credentials.
    pub fn local(reference: &str) -> Self {
        Self { reference: reference.to_owned(), host: reference.to_owned(), ..Self::default() }
    }

    pub(super) fn flags(&self, side: &str) -> Vec<OsString> {
        let mut flags = Vec::new();
        let mut path = |name: &str, path: &Option<PathBuf>| {
            if let Some(path) = path {
                flags.extend([format!("--{side}-{name}").into(), path.clone().into_os_string()]);
            }
        };
        match &self.credentials {
            Some(_) => path("authfile", &Some(STDIN.into())),
            None => path("authfile", &self.authfile),
        }
        path("cert-dir", &self.cert_dir);
        flags.extend(self.tls_verify.map(|verify| format!("--{side}-tls-verify={verify}").into()));
        flags
    }
}
