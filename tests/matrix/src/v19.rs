// SPDX-License-Identifier: GPL-2.0-only

//! rustls 0.19, which called its connections sessions. In and out: exchange.rs.

mod exchange;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;

use exchange::{Result, Session, Stream, Version};
use rustls::ALL_CIPHERSUITES;
use rustls::{Certificate, NoClientAuth, PrivateKey, ProtocolVersion, SupportedCipherSuite};
use rustls::{ClientConfig, ClientSession, ServerConfig, ServerSession, StreamOwned};
use webpki::DNSNameRef;

impl<S: rustls::Session> Stream for StreamOwned<S, TcpStream> {
    fn close(&mut self) -> Result<()> {
        self.sess.send_close_notify();
        self.flush()?;
        // What it reads ends here only.
        Ok(self.sock.shutdown(Shutdown::Write)?)
    }
}

fn suites(session: &Session) -> Vec<&'static SupportedCipherSuite> {
    let wanted =
        |suite: &&SupportedCipherSuite| format!("{:?}", suite.suite).contains(session.suite);
    ALL_CIPHERSUITES.iter().copied().filter(wanted).collect()
}

fn versions(session: &Session) -> Vec<ProtocolVersion> {
    match session.version {
        Version::Tls12 => vec![ProtocolVersion::TLSv1_2],
        Version::Tls13 => vec![ProtocolVersion::TLSv1_3],
    }
}

fn client(session: &Session, tcp: TcpStream) -> Result<Box<dyn Stream>> {
    let mut config = ClientConfig::with_ciphersuites(&suites(session));
    config.versions = versions(session);
    config
        .root_store
        .add(&Certificate(session.certificate.clone()))
        .map_err(|why| why.to_string())?;
    let name = DNSNameRef::try_from_ascii_str("localhost")?;

    Ok(Box::new(StreamOwned::new(
        ClientSession::new(&Arc::new(config), name),
        tcp,
    )))
}

fn server(session: &Session, tcp: TcpStream) -> Result<Box<dyn Stream>> {
    let mut config = ServerConfig::with_ciphersuites(NoClientAuth::new(), &suites(session));
    config.versions = versions(session);
    config.set_single_cert(
        vec![Certificate(session.certificate.clone())],
        PrivateKey(session.key.clone()),
    )?;

    Ok(Box::new(StreamOwned::new(
        ServerSession::new(&Arc::new(config)),
        tcp,
    )))
}

fn main() -> ExitCode {
    exchange::run(&["ring"], &exchange::VERSIONS, client, server)
}
