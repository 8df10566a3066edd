// SPDX-License-Identifier: GPL-2.0-only

//! A server of warp, with the TLS that it brings (rustls 0.22), and clients of
//! hyper in the same process, on one thread. In: the server's certificate and
//! key as files, the number of connections. Out: the truth file; the clients'
//! witnesses speak for the server. It must never give the server a stream that
//! is not its own.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tlssnoop_rustls_targets::{Args, Result, Truth, finish, ready};
use tlssnoop_stacks_targets::{Witness, payload};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use warp::Filter;

const USAGE: &str = "\
usage: warp_target --truth FILE [--tls 1.2|1.3] [--suite aes128|aes256|chacha] CERT KEY N";
const ROUNDS: usize = 11;

async fn client(
    config: ClientConfig,
    to: SocketAddr,
    truth: Arc<Truth>,
) -> Result<SendRequest<Full<Bytes>>> {
    let witness = Witness::connect(config, to, truth).await?;
    let (mut client, connection) = http1::handshake(TokioIo::new(witness)).await?;
    tokio::spawn(connection);

    for round in 0..ROUNDS {
        let body: Full<Bytes> = payload("client", round).into();
        let request = Request::post(format!("/{round}"))
            .header("Host", "localhost")
            .body(body)?;
        let response = client.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("request {round}: {}", response.status()).into());
        }
        if response.into_body().collect().await?.to_bytes() != payload("server", round + 3) {
            return Err(format!("request {round} got another answer").into());
        }
    }
    Ok(client)
}

fn answer(number: usize, body: warp::hyper::body::Bytes) -> warp::http::Response<Vec<u8>> {
    let mut response = warp::http::Response::new(payload("server", number + 3));
    if body != payload("client", number) {
        *response.status_mut() = warp::http::StatusCode::BAD_REQUEST;
    }
    response
}

fn run() -> Result<()> {
    let mut args = Args::default();
    let certificate = args.own()?.ok_or(USAGE)?;
    let key = args.value("KEY")?;
    let count = args.number("N")?;
    let truth = Arc::new(args.truth("")?);
    let config = args
        .tls
        .client(CertificateDer::from_pem_file(&certificate)?)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    ready(args)?;

    runtime.block_on(async {
        let routes = warp::path::param().and(warp::body::bytes()).map(answer);
        let server = warp::serve(routes)
            .tls()
            .cert_path(certificate)
            .key_path(key);
        let (address, server) = server.bind_ephemeral(([127, 0, 0, 1], 0));
        tokio::spawn(server);
        let mut clients = JoinSet::new();
        for _ in 0..count {
            clients.spawn(client(config.clone(), address, truth.clone()));
        }
        // Open to the end, so that no descriptor comes again.
        let mut done = Vec::new();
        while let Some(client) = clients.join_next().await {
            done.push(client??);
        }
        Result::Ok(())
    })?;
    truth.save()
}

fn main() -> ExitCode {
    finish(run())
}
