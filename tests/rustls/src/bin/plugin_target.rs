// SPDX-License-Identifier: GPL-2.0-only

//! A program with a rustls of its own that loads libraries with others in
//! them (../../../plugin). In: the options below. Out: the truth file of all
//! connections. The libraries are loaded before the test says go, their
//! exchanges and the program's own come one after the other, twice. It must
//! never count an exchange that failed.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::{mem, slice, thread};

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use tlssnoop_rustls_targets::{Args, Result, Tls, Truth, finish, message, ready};

const USAGE: &str = "\
usage: plugin_target --truth FILE [--tls 1.2|1.3] LIBRARY...";

const LENGTHS: [usize; 5] = [7, 8192, 16384, 16385, 40009];

type Told = extern "C" fn(what: u8, fd: c_int, data: *const u8, len: usize);
type Exchange = unsafe extern "C" fn(*const u8, usize, *const u8, usize, Told) -> c_int;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

const RTLD_NOW: c_int = 2;

static TRUTH: OnceLock<Truth> = OnceLock::new();

fn truth() -> &'static Truth {
    TRUTH.get().expect("set before any exchange")
}

extern "C" fn told(what: u8, fd: c_int, data: *const u8, len: usize) {
    if what == b'c' {
        return truth().close(fd);
    }
    // SAFETY: the library's promise.
    let data = unsafe { slice::from_raw_parts(data, len) };
    match what {
        b'w' => truth().write(fd, data),
        _ => truth().read(fd, data),
    }
}

fn load(path: &str) -> Result<Exchange> {
    let name = CString::new(path)?;
    // SAFETY: the library and its function are those of ../../../plugin.
    unsafe {
        let library = dlopen(name.as_ptr(), RTLD_NOW);
        if library.is_null() {
            return Err(format!("{path}: cannot be loaded").into());
        }
        let function = dlsym(library, c"plugin_exchange".as_ptr());
        if function.is_null() {
            return Err(format!("{path}: is no plugin").into());
        }
        Ok(mem::transmute::<*mut c_void, Exchange>(function))
    }
}

fn own(server_config: Arc<ServerConfig>, client_config: Arc<ClientConfig>) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || -> Result<()> {
        let mut tls = StreamOwned::new(ServerConnection::new(server_config)?, listener.accept()?.0);
        for len in LENGTHS {
            let mut data = vec![0; len];
            tls.read_exact(&mut data)?;
            truth().read(tls.sock.as_raw_fd(), &data);
            tls.write_all(&data)?;
            truth().write(tls.sock.as_raw_fd(), &data);
        }
        match tls.read(&mut [0])? {
            0 => Ok(truth().close(tls.sock.as_raw_fd())),
            _ => Err("data behind the last message".into()),
        }
    });
    let conn = ClientConnection::new(client_config, "localhost".try_into()?)?;
    let mut tls = StreamOwned::new(conn, TcpStream::connect(address)?);
    for (number, len) in LENGTHS.into_iter().enumerate() {
        let mut data = message("own", number, len);
        tls.write_all(&data)?;
        truth().write(tls.sock.as_raw_fd(), &data);
        tls.read_exact(&mut data)?;
        truth().read(tls.sock.as_raw_fd(), &data);
    }
    tls.conn.send_close_notify();
    tls.flush()?;
    truth().close(tls.sock.as_raw_fd());
    server.join().unwrap_or_else(|_| Err("panicked".into()))
}

fn run() -> Result<()> {
    let mut args = Args::default();
    let mut exchanges = Vec::new();
    while let Some(path) = args.own()? {
        exchanges.push((load(&path)?, path));
    }
    if exchanges.is_empty() || TRUTH.set(args.truth("")?).is_err() {
        return Err(USAGE.into());
    }
    let (certificate, key) = Tls::certificate()?;
    let server_config = args.tls.server_with(certificate.clone(), key.clone_key())?;
    let client_config = args.tls.client(certificate.clone())?;
    let (server_config, client_config) = (Arc::new(server_config), Arc::new(client_config));
    let key = key.secret_der();
    ready(args)?;

    for _ in 0..2 {
        own(server_config.clone(), client_config.clone())?;
        for (exchange, path) in &exchanges {
            // SAFETY: these are what it wants.
            let failed = unsafe {
                exchange(
                    certificate.as_ptr(),
                    certificate.len(),
                    key.as_ptr(),
                    key.len(),
                    told,
                )
            };
            if failed != 0 {
                return Err(format!("{path}: the exchange failed").into());
            }
        }
    }
    truth().save()
}

fn main() -> ExitCode {
    finish(run())
}
