// SPDX-License-Identifier: GPL-2.0-only

//! rustls 0.22 and 0.23, with the providers that are features of this package.
//! In and out: exchange.rs.

mod connection;
mod exchange;

use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;

use connection::versions;
use exchange::{Result, Session, Stream};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls::{RootCertStore, StreamOwned};

const PROVIDERS: &[&str] = &[
    "ring",
    #[cfg(feature = "aws-lc-rs")]
    "aws-lc-rs",
];

fn provider(session: &Session) -> Arc<CryptoProvider> {
    let mut provider = match session.provider {
        #[cfg(feature = "aws-lc-rs")]
        "aws-lc-rs" => crypto::aws_lc_rs::default_provider(),
        _ => crypto::ring::default_provider(),
    };
    provider
        .cipher_suites
        .retain(|suite| format!("{suite:?}").contains(session.suite));
    Arc::new(provider)
}

fn client(session: &Session, tcp: TcpStream) -> Result<Box<dyn Stream>> {
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from(session.certificate.clone()))?;
    let config = ClientConfig::builder_with_provider(provider(session))
        .with_protocol_versions(&versions(session))?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let conn = ClientConnection::new(Arc::new(config), "localhost".try_into()?)?;

    Ok(Box::new(StreamOwned::new(conn, tcp)))
}

fn server(session: &Session, tcp: TcpStream) -> Result<Box<dyn Stream>> {
    let chain = vec![CertificateDer::from(session.certificate.clone())];
    let config = ServerConfig::builder_with_provider(provider(session))
        .with_protocol_versions(&versions(session))?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::Pkcs8(session.key.clone().into()))?;

    Ok(Box::new(StreamOwned::new(
        ServerConnection::new(Arc::new(config))?,
        tcp,
    )))
}

fn main() -> ExitCode {
    exchange::run(PROVIDERS, &exchange::VERSIONS, client, server)
}
