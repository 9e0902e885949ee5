//! An authority of this run, and certificates by it for a registry on loopback.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cell::World;

/// A certificate and its key.
#[derive(Debug)]
pub struct Pair {
    /// PEM file of the certificate.
    pub certificate: PathBuf,
    /// PEM file of the key.
    pub key: PathBuf,
}

/// Configuration of `openssl ca`, the one subcommand that all releases have with dates in the past.
const CONFIG: &str = "\
[ca]
default_ca = this
[this]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = policy
x509_extensions = extensions
[policy]
commonName = supplied
[extensions]
subjectAltName = IP:127.0.0.1, DNS:localhost
";

/// Makes an authority in `dir`, which it leaves there as `ca.crt`, and a certificate by it that is valid until `end`.
pub fn issue(world: &World, dir: &Path, end: &str) -> Pair {
    fs::create_dir_all(dir).expect("a directory");
    fs::write(dir.join("config"), CONFIG).expect("a file");
    fs::write(dir.join("index.txt"), "").expect("a file");
    fs::write(dir.join("serial"), "01\n").expect("a file");
    let openssl = |args: &str| {
        let dir = ["-C".as_ref(), dir.as_os_str(), "openssl".as_ref()];
        world.run("env", dir.into_iter().chain(args.split(' ').map(std::ffi::OsStr::new))).ok();
    };
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {new} -keyout ca.key -out ca.crt -days 3650 -subj /CN=tests"));
    openssl(&format!("req {new} -keyout server.key -out server.csr -subj /CN=localhost"));
    openssl(&format!(
        "ca -batch -notext -config config -cert ca.crt -keyfile ca.key -in server.csr -out server.crt \
         -startdate 20200101000000Z -enddate {end}"
    ));
    Pair { certificate: dir.join("server.crt"), key: dir.join("server.key") }
}
