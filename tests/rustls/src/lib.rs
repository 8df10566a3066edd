// SPDX-License-Identifier: GPL-2.0-only

//! What the rustls test targets share: that of target.rs, and the TLS
//! configurations with a certificate made at start. It must never touch the
//! network itself.

use std::io;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{FromRawFd, RawFd};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

mod target;
mod wrapped;
pub use target::*;

impl Tls {
    fn versions(&self) -> [&'static SupportedProtocolVersion; 1] {
        match self.version {
            Version::Tls12 => [&TLS12],
            Version::Tls13 => [&TLS13],
        }
    }

    pub fn with_suite(&self, suite: &'static str) -> Self {
        Self { suite, ..*self }
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = ring::default_provider();
        provider
            .cipher_suites
            .retain(|suite| format!("{suite:?}").contains(self.suite));
        if self.wrapped {
            wrapped::wrap(&mut provider);
        }
        Arc::new(provider)
    }

    /// With the certificate that the client has to know.
    pub fn server(&self) -> Result<(ServerConfig, CertificateDer<'static>)> {
        let (certificate, key) = Self::certificate()?;
        let config = self.server_with(certificate.clone(), key)?;
        Ok((config, certificate))
    }

    /// A certificate for this run and its key.
    pub fn certificate() -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let own = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
        let certificate = CertificateDer::from(own.cert);
        let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        Ok((certificate, key))
    }

    pub fn server_with(
        &self,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<ServerConfig> {
        let config = ServerConfig::builder_with_provider(self.provider())
            .with_protocol_versions(&self.versions())?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;

        Ok(config)
    }

    pub fn client(&self, server: CertificateDer<'static>) -> Result<ClientConfig> {
        let mut trusted = RootCertStore::empty();

        trusted.add(server)?;
        Ok(ClientConfig::builder_with_provider(self.provider())
            .with_protocol_versions(&self.versions())?
            .with_root_certificates(trusted)
            .with_no_client_auth())
    }
}

/// The descriptor of the socket of this process for which `wanted` holds.
/// Libraries that keep their sockets to themselves do not tell it.
fn fd_where(wanted: impl Fn(&TcpStream) -> io::Result<bool>) -> Option<RawFd> {
    (3..1024).find(|&fd| {
        // SAFETY: nothing closes it here, and asking any descriptor for its name is harmless.
        let socket = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(fd) });
        wanted(&socket).unwrap_or(false)
    })
}

/// The one socket that is bound to this address: a client's.
pub fn fd_of(local: SocketAddr) -> Result<RawFd> {
    fd_where(|socket| Ok(socket.local_addr()? == local))
        .ok_or_else(|| format!("no socket is bound to {local}").into())
}

/// The end at `local` of a connection whose other end is at `remote`.
pub fn fd_between(local: SocketAddr, remote: SocketAddr) -> Result<RawFd> {
    fd_where(|socket| Ok(socket.local_addr()? == local && socket.peer_addr()? == remote))
        .ok_or_else(|| format!("no socket leads from {local} to {remote}").into())
}
