// SPDX-License-Identifier: GPL-2.0-only

//! What programs with rustls 0.20 to 0.23 have in common. In and out: exchange.rs.

use std::io::Write;
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};

use rustls::version::{TLS12, TLS13};
use rustls::{ConnectionCommon, SideData, StreamOwned, SupportedProtocolVersion};

use crate::exchange::{Result, Session, Stream, Version};

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

pub fn versions(session: &Session) -> [&'static SupportedProtocolVersion; 1] {
    match session.version {
        Version::Tls12 => [&TLS12],
        Version::Tls13 => [&TLS13],
    }
}
