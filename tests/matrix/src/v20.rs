// SPDX-License-Identifier: GPL-2.0-only

//! rustls 0.20 and 0.21. In and out: exchange.rs.

mod exchange;

use std::convert::TryInto;
use std::io::Write;
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::process::ExitCode;
use std::sync::Arc;

use exchange::{Result, Session, Stream, Version};
use rustls::version::{TLS12, TLS13};
use rustls::{Certificate, PrivateKey, RootCertStore, SupportedCipherSuite, ALL_CIPHER_SUITES};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls::{ConnectionCommon, SideData, StreamOwned, SupportedProtocolVersion};

impl<C, S> Stream for StreamOwned<C, TcpStream>
where
    C: DerefMut + Deref<Target = ConnectionCommon<S>>,
    S: SideData,
{
    fn close(&mut self) -> Result<()> {
        self.conn.send_close_notify();
        Ok(self.flush()?)
    }
}

fn suites(session: &Session) -> Vec<SupportedCipherSuite> {
    let wanted = |suite: &SupportedCipherSuite| format!("{suite:?}").contains(session.suite);
    ALL_CIPHER_SUITES.iter().copied().filter(wanted).collect()
}

fn versions(session: &Session) -> [&'static SupportedProtocolVersion; 1] {
    match session.version {
        Version::Tls12 => [&TLS12],
        Version::Tls13 => [&TLS13],
    }
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
    exchange::run(&["ring"], client, server)
}
