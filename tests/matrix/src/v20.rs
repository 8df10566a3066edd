// SPDX-License-Identifier: GPL-2.0-only

//! rustls 0.20 and 0.21. In and out: exchange.rs.

mod connection;
mod exchange;

use std::convert::TryInto;
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;

use connection::versions;
use exchange::{Result, Session, Stream};
use rustls::{Certificate, PrivateKey, RootCertStore, SupportedCipherSuite, ALL_CIPHER_SUITES};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

fn suites(session: &Session) -> Vec<SupportedCipherSuite> {
    let wanted = |suite: &SupportedCipherSuite| format!("{suite:?}").contains(session.suite);
    ALL_CIPHER_SUITES.iter().copied().filter(wanted).collect()
}

fn client(session: &Session, tcp: TcpStream) -> Result<Box<dyn Stream>> {
    let mut trusted = RootCertStore::empty();
    trusted.add(&Certificate(session.certificate.clone()))?;
    let config = ClientConfig::builder()
        .with_cipher_suites(&suites(session))
        .with_safe_default_kx_groups()
        .with_protocol_versions(&versions(session))?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let conn = ClientConnection::new(Arc::new(config), "localhost".try_into()?)?;

    Ok(Box::new(StreamOwned::new(conn, tcp)))
}

fn server(session: &Session, tcp: TcpStream) -> Result<Box<dyn Stream>> {
    let chain = vec![Certificate(session.certificate.clone())];
    let config = ServerConfig::builder()
        .with_cipher_suites(&suites(session))
        .with_safe_default_kx_groups()
        .with_protocol_versions(&versions(session))?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKey(session.key.clone()))?;

    Ok(Box::new(StreamOwned::new(
        ServerConnection::new(Arc::new(config))?,
        tcp,
    )))
}

fn main() -> ExitCode {
    exchange::run(&["ring"], &exchange::VERSIONS, client, server)
}
