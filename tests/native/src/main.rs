// SPDX-License-Identifier: GPL-2.0-only

//! A server by the openssl crate and clients by native-tls; see ends.rs. It must
//! never use another library for TLS.

use std::fs;
use std::net::TcpStream;
use std::process::ExitCode;

use native_tls::{Certificate, Protocol, TlsConnector, TlsStream};
use openssl::ssl;
use tlssnoop_rustls_targets as target;

mod ends;

use ends::{Client, Stream, run};
use target::Result;

impl Stream for TlsStream<TcpStream> {
    fn end(&mut self) -> Result<()> {
        Ok(self.shutdown()?)
    }
}

impl Client for TlsConnector {
    fn new(certificate: &str, old: bool) -> Result<Self> {
        Ok(Self::builder()
            .disable_built_in_roots(true)
            .add_root_certificate(Certificate::from_pem(&fs::read(certificate)?)?)
            .max_protocol_version(old.then_some(Protocol::Tlsv12))
            .build()?)
    }

    fn to_localhost(&self, tcp: TcpStream) -> Result<impl Stream> {
        Ok(self.connect("localhost", tcp)?)
    }
}

fn main() -> ExitCode {
    run::<TlsConnector>()
}
