// SPDX-License-Identifier: GPL-2.0-only

//! Server and clients by the boring crate; see ../../native/src/ends.rs. It must
//! never use another library for TLS.

use std::net::TcpStream;
use std::process::ExitCode;

use boring::ssl::{self, SslConnector, SslMethod, SslVersion};

#[path = "../../native/src/ends.rs"]
mod ends;
#[path = "../../rustls/src/target.rs"]
#[allow(dead_code)] // other targets need more of it
mod target;

use ends::{Client, Stream, run};
use target::Result;

impl Client for SslConnector {
    fn new(certificate: &str, old: bool) -> Result<Self> {
        let mut builder = Self::builder(SslMethod::tls())?;
        builder.set_ca_file(certificate)?;
        builder.set_max_proto_version(old.then_some(SslVersion::TLS1_2))?;
        Ok(builder.build())
    }

    fn to_localhost(&self, tcp: TcpStream) -> Result<impl Stream> {
        Ok(self.connect("localhost", tcp)?)
    }
}

fn main() -> ExitCode {
    run::<SslConnector>()
}
