//! Handshakes with a server of rustls on loopback. The keys are for this test only; the certificates are good until 2120.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::thread;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection};
use ureq::http::Method;

use super::super::certs::CertDirs;
use super::super::files::Files;
use super::super::http::{self, Failure, Request, Scheme, Timeouts, Url};
use super::super::proxies::Proxies;
use super::*;
use crate::process::Cancel;

const CA: &str = "\
-----BEGIN CERTIFICATE-----
MIIBeTCCAR6gAwIBAgIUTUCgsSt9S710Mi/dsFKhPqasQF8wCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOdGVzdC1hdXRob3JpdHkwIBcNMjAwMTAxMDAwMDAwWhgPMjEy
MDAxMDEwMDAwMDBaMBkxFzAVBgNVBAMMDnRlc3QtYXV0aG9yaXR5MFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEYKdjRjH446FcVIkcj4OXiPQIWsvKpGdW4n67d8Qv
6qU3mxvAT+GXxJ9tP12iZ3xk7wz1id9T01FYlZ2R/yQyAaNCMEAwDwYDVR0TAQH/
BAUwAwEB/zAOBgNVHQ8BAf8EBAMCAgQwHQYDVR0OBBYEFP/4AyxDll0+ct5C6IoF
LOx+9DvfMAoGCCqGSM49BAMCA0kAMEYCIQDvHUdC6HL7BKoLFJ+gGW1ZlGY+eYbS
6T0DgHnKxfRyPQIhAMl/tHNojGMdOscck0ge7u6egkBnKBMXU3ZfsNgLqQUS
-----END CERTIFICATE-----
";
const SERVER: &str = "\
-----BEGIN CERTIFICATE-----
MIIBhzCCAS+gAwIBAgIUA7NkHFUe5tFLdlOMZq0qhghy+BQwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOdGVzdC1hdXRob3JpdHkwIBcNMjAwMTAxMDAwMDAwWhgPMjEy
MDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMMCWxvY2FsaG9zdDBZMBMGByqGSM49AgEG
CCqGSM49AwEHA0IABDPbAoQswn1JuZ8Pt7i5hEHzgLgTvFuUPtndQ+eG2SoElQC2
KQHh7nqmReqxM4+DWZCPbrEzTRr7XCwsxSkNg+ijWDBWMBQGA1UdEQQNMAuCCWxv
Y2FsaG9zdDAdBgNVHQ4EFgQUVrwqEubwo5t72iCny4tevZnnrvIwHwYDVR0jBBgw
FoAU//gDLEOWXT5y3kLoigUs7H70O98wCgYIKoZIzj0EAwIDRgAwQwIfHiyhk62+
KpH4WgQ5uou9trmdDsTnlGQMtxEpbWxwVAIgdF+i5yBXC8+tKZ+g8c+eli8E0vds
ms9nmmHapL8xMnQ=
-----END CERTIFICATE-----
";
const EXPIRED: &str = "\
-----BEGIN CERTIFICATE-----
MIIBhzCCAS2gAwIBAgIUL0z7GVuMrWm56Haqsf0QrgIMe9swCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOdGVzdC1hdXRob3JpdHkwHhcNMjAwMTAxMDAwMDAwWhcNMjEw
MTAxMDAwMDAwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggq
hkjOPQMBBwNCAAQz2wKELMJ9SbmfD7e4uYRB84C4E7xblD7Z3UPnhtkqBJUAtikB
4e56pkXqsTOPg1mQj26xM00a+1wsLMUpDYPoo1gwVjAUBgNVHREEDTALgglsb2Nh
bGhvc3QwHQYDVR0OBBYEFFa8KhLm8KObe9ogp8uLXr2Z567yMB8GA1UdIwQYMBaA
FP/4AyxDll0+ct5C6IoFLOx+9DvfMAoGCCqGSM49BAMCA0gAMEUCIBswjuWlr/cB
L0cXbbejcNyB5XSVI+WVF+2PnnZ3LZm6AiEA6xXaniYujW21U383ruhfFsgoqmgh
fVFn0nrvL8nwAnc=
-----END CERTIFICATE-----
";
const CLIENT: &str = "\
-----BEGIN CERTIFICATE-----
MIIBmTCCAT6gAwIBAgIUMnMH7jan7zDR5YLXUY9fHqnc1/YwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOdGVzdC1hdXRob3JpdHkwIBcNMjAwMTAxMDAwMDAwWhgPMjEy
MDAxMDEwMDAwMDBaMBExDzANBgNVBAMMBmNsaWVudDBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABDPbAoQswn1JuZ8Pt7i5hEHzgLgTvFuUPtndQ+eG2SoElQC2KQHh
7nqmReqxM4+DWZCPbrEzTRr7XCwsxSkNg+ijajBoMBMGA1UdJQQMMAoGCCsGAQUF
BwMCMBEGA1UdEQQKMAiCBmNsaWVudDAdBgNVHQ4EFgQUVrwqEubwo5t72iCny4te
vZnnrvIwHwYDVR0jBBgwFoAU//gDLEOWXT5y3kLoigUs7H70O98wCgYIKoZIzj0E
AwIDSQAwRgIhAJicNMJyhsP9cCAiFSyh0GBrBfXNYyEuCi0ZO8jVC5/eAiEAvod6
tEgIw5Qr/kaQFrrjWICVbeFRnEr0c63pQESxsgk=
-----END CERTIFICATE-----
";
const SELF_SIGNED: &str = "\
-----BEGIN CERTIFICATE-----
MIIBczCCARqgAwIBAgIUS5wIr0zj4XUQjoNaCAwqNCDGZ1QwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAx
MDAwMDAwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQz2wKELMJ9SbmfD7e4uYRB84C4E7xblD7Z3UPnhtkqBJUAtikB4e56
pkXqsTOPg1mQj26xM00a+1wsLMUpDYPoo0gwRjAPBgNVHRMBAf8EBTADAQH/MBQG
A1UdEQQNMAuCCWxvY2FsaG9zdDAdBgNVHQ4EFgQUVrwqEubwo5t72iCny4tevZnn
rvIwCgYIKoZIzj0EAwIDRwAwRAIgTmlusQAL33PzvJtn92N7ezUutZLTqUPYHPE+
8c+g5T0CIEQ+bmFFQ46Svn33ng7nhXRCMkwGLUdlc1OKZdekCSmf
-----END CERTIFICATE-----
";
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgawAf/itKVxteIQtF
E7H2kv2IvLBOo4Lc+ItIP36H8vehRANCAAQz2wKELMJ9SbmfD7e4uYRB84C4E7xb
lD7Z3UPnhtkqBJUAtikB4e56pkXqsTOPg1mQj26xM00a+1wsLMUpDYPo
-----END PRIVATE KEY-----
";

/// Starts a server that answers each request with `hello`, and returns its port.
fn server(certificate: &str, ask_client: bool) -> u16 {
    let provider = Arc::new(ring::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = if ask_client {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(CA.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = BufReader::new(StreamOwned { conn: connection, sock: socket.unwrap() });
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|n| n > 0) && line != "\r\n" {
                line.clear();
            }
            let _ = stream.get_mut().write_all(b"HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\nhello");
        }
    });
    port
}

fn request(host: &str, port: u16) -> Request {
    let url = Url { scheme: Scheme::Https, authority: format!("{host}:{port}"), path: "/".into() };
    Request { method: Method::GET, url, headers: Vec::new(), body: None, limit: 100 }
}

fn get(host: &str, port: u16, files: &[(&str, &str)], verify: bool) -> Result<String, Failure> {
    let dirs = CertDirs { home: None, cert_dir: Some("/c".into()) };
    let tls = config(dirs.read("r", &Files::of(files)).unwrap(), verify).unwrap();
    let timeouts = Timeouts::default();
    let agent = http::agent(tls, None, "test", &timeouts);
    let response = http::run(&agent, request(host, port), &timeouts, &Cancel::default())?;
    Ok(String::from_utf8(response.body).unwrap())
}

/// The server's certificate, whether it asks for ours, the host, the files in the directory of certificates, whether to
/// verify, and what is wrong.
type Case<'a> = (&'a str, bool, &'a str, &'a [(&'a str, &'a str)], bool, Option<&'a str>);

#[test]
fn what_is_wrong_with_a_certificate() {
    let ca = ("/c/ca.crt", CA);
    let own = ("/c/ca.crt", SELF_SIGNED);
    let client = [ca, ("/c/me.cert", CLIENT), ("/c/me.key", KEY)];
    let unknown = "its certificate is signed by an unknown authority";
    let cases: &[Case] = &[
        (SERVER, false, "localhost", &[ca], true, None),
        (SERVER, false, "localhost", &[], true, Some(unknown)),
        (SERVER, false, "localhost", &[own], true, Some(unknown)),
        (SERVER, false, "127.0.0.1", &[ca], true, Some("its certificate is for localhost, and not for 127.0.0.1")),
        (EXPIRED, false, "localhost", &[ca], true, Some("its certificate expired on 2021-01-01")),
        // `openssl req -x509` makes such: an authority that is the server too.
        (SELF_SIGNED, false, "localhost", &[own], true, None),
        (SELF_SIGNED, false, "localhost", &[ca], true, Some(unknown)),
        (
            SELF_SIGNED,
            false,
            "127.0.0.1",
            &[own],
            true,
            Some("its certificate is for localhost, and not for 127.0.0.1"),
        ),
        (EXPIRED, false, "127.0.0.1", &[], false, None),
        (SELF_SIGNED, false, "127.0.0.1", &[], false, None),
        (SERVER, true, "localhost", &client, true, None),
        (SERVER, true, "localhost", &[ca], true, Some("it asks for a client certificate")),
    ];
    for (number, (certificate, ask_client, host, files, verify, wrong)) in cases.iter().enumerate() {
        let result = get(host, server(certificate, *ask_client), files, *verify);
        match (result, wrong) {
            (Ok(body), None) => assert_eq!(body, "hello"),
            (Err(Failure::Tls(failure)), Some(wrong)) => assert_eq!(failure.to_string(), *wrong, "{number}"),
            (result, wrong) => panic!("{number}: {result:?}, not {wrong:?}"),
        }
    }
}

#[test]
fn a_client_key_that_does_not_fit() {
    let files = Files::of(&[("/c/me.cert", CA), ("/c/me.key", KEY)]);
    let certs = CertDirs { home: None, cert_dir: Some("/c".into()) }.read("r", &files).unwrap();
    let error = config(certs, true).unwrap_err();
    assert!(error.starts_with("/c/me.cert cannot be used: "), "{error}");
}

#[test]
fn a_proxy_is_asked_to_connect() {
    let port = server(SERVER, false);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxies = Proxies::new(Some(&listener.local_addr().unwrap().to_string()), None, None).unwrap();
    let proxy = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(client.try_clone().unwrap());
        let mut first = String::new();
        reader.read_line(&mut first).unwrap();
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 0 && line != "\r\n" {
            line.clear();
        }
        client.write_all(b"HTTP/1.1 200 X\r\n\r\n").unwrap();
        let mut server = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut to_client, mut from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || io::copy(&mut from_server, &mut to_client));
        thread::spawn(move || io::copy(&mut reader, &mut server));
        first
    });
    let timeouts = Timeouts::default();
    let tls = config(HostCerts::default(), false).unwrap();
    let agent = http::agent(tls, proxies.proxy(true, "r.invalid", 443).cloned(), "test", &timeouts);
    let response = http::run(&agent, request("r.invalid", 443), &timeouts, &Cancel::default()).unwrap();
    assert_eq!(response.body, b"hello");
    assert_eq!(proxy.join().unwrap(), "CONNECT r.invalid:443 HTTP/1.1\r\n");
}
