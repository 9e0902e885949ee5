//! TLS for the HTTP client: rustls with the system's authorities and those of certs.d.
//!
//! A connector of ours and not the one of `ureq`, because that one panics on a client key that does not fit, and because
//! rustls refuses what podman accepts: a self-signed certificate that is itself among the trusted ones.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, InvalidMessage,
    RootCertStore,
};
use rustls::{SignatureScheme, StreamOwned};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout};
use ureq::unversioned::transport::{Transport, TransportAdapter};

use super::certs::HostCerts;

/// Why a connection could not be made secure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TlsFailure {
    /// The other side does not speak TLS.
    Plain,
    /// No trusted authority signed its certificate.
    UnknownAuthority,
    /// Everything else, in words that follow the name of the registry.
    Other(String),
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("it speaks plain HTTP"),
            Self::UnknownAuthority => f.write_str("its certificate is signed by an unknown authority"),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

impl StdError for TlsFailure {}

impl From<&rustls::Error> for TlsFailure {
    fn from(error: &rustls::Error) -> Self {
        let text = match error {
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => return Self::Plain,
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => return Self::UnknownAuthority,
            rustls::Error::InvalidCertificate(error) => certificate(error),
            rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
                "it asks for a client certificate".to_owned()
            }
            rustls::Error::AlertReceived(alert) => format!("it ended the TLS handshake: {alert:?}"),
            rustls::Error::NoCertificatesPresented => "it shows no certificate".to_owned(),
            error => format!("TLS: {error}"),
        };
        Self::Other(text)
    }
}

fn certificate(error: &CertificateError) -> String {
    let date = |time: &UnixTime| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        chrono::DateTime::from_timestamp(seconds, 0).map_or_else(String::new, |t| t.format(" on %F").to_string())
    };
    match error {
        CertificateError::Expired => "its certificate has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => format!("its certificate expired{}", date(not_after)),
        CertificateError::NotValidYet => "its certificate is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("its certificate is not valid yet; it will be{}", date(not_before))
        }
        CertificateError::NotValidForName => "its certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            // They come as `DnsName("localhost")`.
            let bare = |name: &String| {
                let inner = name.split_once('(').map_or(name.as_str(), |(_, inner)| inner.trim_end_matches(')'));
                inner.trim_matches('"').to_owned()
            };
            let names: Vec<String> = presented.iter().map(bare).collect();
            let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
            format!("its certificate is for {names}, and not for {}", expected.to_str())
        }
        error => format!("its certificate is not accepted: {error}"),
    }
}

/// Returns the configuration for a registry.
///
/// # Errors
/// What is wrong with the client certificate.
pub(super) fn config(certs: HostCerts, verify: bool) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match verify {
        true => Arc::new(Verifier::new(&provider, certs.authorities)),
        false => Arc::new(Anything(provider.clone())),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match certs.client {
        None => builder.with_no_client_auth(),
        Some(pair) => builder
            .with_client_auth_cert(pair.chain, pair.key)
            .map_err(|e| format!("{} cannot be used: {e}", pair.file.display()))?,
    };
    Ok(Arc::new(config))
}

/// The system's authorities, read at the first connection that needs them.
fn system_authorities() -> &'static [CertificateDer<'static>] {
    static SYSTEM: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    // Files that cannot be read are skipped, as in Go; without any a registry is of an unknown authority.
    SYSTEM.get_or_init(|| rustls_native_certs::load_native_certs().certs)
}

/// The usual verification, and certificates that are trusted themselves.
///
/// The authorities are read when there is a certificate to be verified: that is 150 files and more, and a registry on
/// loopback that speaks plain HTTP shows none.
#[derive(Debug)]
struct Verifier {
    /// `None` without any authority.
    webpki: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
    provider: Arc<CryptoProvider>,
    own: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(provider: &Arc<CryptoProvider>, own: Vec<CertificateDer<'static>>) -> Self {
        Self { webpki: OnceLock::new(), provider: provider.clone(), own }
    }

    fn webpki(&self) -> Option<&WebPkiServerVerifier> {
        let make = || {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(system_authorities().iter().chain(&self.own).cloned());
            // It fails without authorities only; there are no lists of revoked certificates.
            WebPkiServerVerifier::builder_with_provider(roots.into(), self.provider.clone()).build().ok()
        };
        self.webpki.get_or_init(make).as_deref()
    }

    fn is_trusted_itself(&self, certificate: &CertificateDer<'_>) -> bool {
        self.own.iter().chain(system_authorities()).any(|trusted| trusted.as_ref() == certificate.as_ref())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(webpki) = self.webpki() else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        match webpki.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // `openssl req -x509` marks its certificates as authorities. That they are within their time has been checked
            // before this is said; the name has not.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(e)))
                if e.to_string().contains("CaUsedAsEndEntity") =>
            {
                if !self.is_trusted_itself(certificate) {
                    return Err(CertificateError::UnknownIssuer.into());
                }
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// No verification: `--tls-verify=false`.
#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Makes the connections of `https` secure.
#[derive(Debug)]
pub(super) struct TlsConnector(pub(super) Arc<ClientConfig>);

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|_| ureq::Error::Tls("the host is no name for TLS"))?;
        let mut connection = ClientConnection::new(self.0.clone(), name).map_err(|e| failure((&e).into()))?;
        let transport: Box<dyn Transport> = Box::new(transport);
        let mut socket = TransportAdapter::new(transport, details.current_time.clone());
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket).map_err(in_tls)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(TlsTransport { buffers, stream: StreamOwned { conn: connection, sock: socket } })))
    }
}

fn failure(failure: TlsFailure) -> ureq::Error {
    ureq::Error::Other(Box::new(failure))
}

/// rustls hides its errors in those of its input.
fn in_tls(error: io::Error) -> ureq::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => failure(inner.into()),
        None => error.into(),
    }
}

/// A connection inside TLS.
pub(super) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount]).map_err(in_tls)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf()).map_err(in_tls)?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "tls_tests.rs"]
mod tests;
