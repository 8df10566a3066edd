// SPDX-License-Identifier: GPL-2.0-only

//! An exchange over loopback with this library's own rustls, between a client
//! and a server thread. In: the server's certificate and key, and a function
//! that is told every byte that rustls took or gave. Out: 0 if all went well.
//! It must never unwind into its caller.

use std::error::Error;
use std::ffi::c_int;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::{panic, ptr, slice, thread};

use rustls::{
    Certificate, ClientConfig, ClientConnection, ConnectionCommon, PrivateKey, RootCertStore,
    ServerConfig, ServerConnection, SideData, StreamOwned,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Told that `len` bytes at `data` were written to (`what` is 'w') or read from
/// ('r') the connection whose socket is `fd`, or that it will be closed ('c').
pub type Told = extern "C" fn(what: u8, fd: c_int, data: *const u8, len: usize);

const LENGTHS: [usize; 7] = [1, 8191, 16383, 16384, 16385, 65536, 101];

fn message(number: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (number * 37 + at * 11 + at / 253) as u8)
        .collect()
}

fn send<C, S>(tls: &mut StreamOwned<C, TcpStream>, told: Told) -> Result<()>
where
    C: DerefMut + Deref<Target = ConnectionCommon<S>>,
    S: SideData,
{
    for (number, &len) in LENGTHS.iter().enumerate() {
        let data = message(number, len);
        let mut rest = &data[..];
        while !rest.is_empty() {
            let taken = tls.write(rest)?;
            told(b'w', tls.sock.as_raw_fd(), rest.as_ptr(), taken);
            rest = &rest[taken..];
        }
    }
    Ok(tls.flush()?)
}

fn receive<C, S>(tls: &mut StreamOwned<C, TcpStream>, told: Told) -> Result<()>
where
    C: DerefMut + Deref<Target = ConnectionCommon<S>>,
    S: SideData,
{
    for (number, &len) in LENGTHS.iter().enumerate() {
        let mut data = vec![0; len];
        tls.read_exact(&mut data)?;
        if data != message(number, len) {
            return Err(format!("message {number} is not what was sent").into());
        }
        told(b'r', tls.sock.as_raw_fd(), data.as_ptr(), len);
    }
    Ok(())
}

fn run(certificate: Certificate, key: PrivateKey, told: Told) -> Result<()> {
    let mut trusted = RootCertStore::empty();
    trusted.add(&certificate)?;
    let client_config = ClientConfig::builder()
        .with_safe_defaults()
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let server_config = ServerConfig::builder()
        .with_safe_defaults()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;

    let server = thread::spawn(move || -> Result<()> {
        let conn = ServerConnection::new(Arc::new(server_config))?;
        let mut tls = StreamOwned::new(conn, listener.accept()?.0);
        receive(&mut tls, told)?;
        send(&mut tls, told)?;
        // The client closes first: its tickets are read by then.
        match tls.read(&mut [0])? {
            0 => Ok(told(b'c', tls.sock.as_raw_fd(), ptr::null(), 0)),
            _ => Err("data behind the last message".into()),
        }
    });
    let conn = ClientConnection::new(Arc::new(client_config), "localhost".try_into()?)?;
    let mut tls = StreamOwned::new(conn, TcpStream::connect(address)?);
    send(&mut tls, told)?;
    receive(&mut tls, told)?;
    tls.conn.send_close_notify();
    tls.flush()?;
    told(b'c', tls.sock.as_raw_fd(), ptr::null(), 0);
    server.join().unwrap_or_else(|_| Err("panicked".into()))
}

/// # Safety
///
/// `certificate` and `key` point to that many bytes each, in DER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plugin_exchange(
    certificate: *const u8,
    certificate_len: usize,
    key: *const u8,
    key_len: usize,
    told: Told,
) -> c_int {
    // SAFETY: the caller's promise.
    let (certificate, key) = unsafe {
        (
            slice::from_raw_parts(certificate, certificate_len),
            slice::from_raw_parts(key, key_len),
        )
    };
    let (certificate, key) = (Certificate(certificate.into()), PrivateKey(key.into()));
    match panic::catch_unwind(|| run(certificate, key, told)) {
        Ok(Ok(())) => 0,
        Ok(Err(why)) => {
            eprintln!("plugin: {why}");
            1
        }
        Err(_) => 2,
    }
}
