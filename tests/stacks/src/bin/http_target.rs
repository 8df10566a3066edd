// SPDX-License-Identifier: GPL-2.0-only

//! A server of axum and, in the same process, a client of hyper with
//! hyper-rustls, or of reqwest, HTTP/1.1 on several connections or HTTP/2 on
//! one. In: the client and the number of requests. Out: the truth file; the
//! client is as anybody would have it, and the server's witness speaks for it.
//! It must never say goodbye: HTTP/2's would go to one that no longer reads.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{Request, StatusCode};
use axum::routing::post;
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use tlssnoop_rustls_targets::{Args, Result, finish, ready};
use tlssnoop_stacks_targets::{Witnesses, payload};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

const USAGE: &str = "\
usage: http_target --truth FILE [OPTION...] hyper|reqwest 1|2 N
  --threads N    of the runtime (1, which is one without workers)
  --tls 1.2|1.3  --suite aes128|aes256|chacha";
const AT_ONCE: usize = 5;

#[derive(Clone)]
enum Client {
    Hyper(Hyper<HttpsConnector<HttpConnector>, Full<Bytes>>),
    Reqwest(reqwest::Client),
}

impl Client {
    fn new(name: &str, version: &str, tls: ClientConfig) -> Result<Self> {
        match name {
            "hyper" => {
                let https = HttpsConnectorBuilder::new()
                    .with_tls_config(tls)
                    .https_only();
                let https = match version {
                    "1" => https.enable_http1().build(),
                    _ => https.enable_http2().build(),
                };
                Ok(Self::Hyper(
                    Hyper::builder(TokioExecutor::new()).build(https),
                ))
            }
            "reqwest" => {
                let client = reqwest::Client::builder()
                    .no_proxy()
                    .tls_backend_preconfigured(tls);
                let client = match version {
                    "1" => client.http1_only(),
                    _ => client.http2_prior_knowledge(),
                };
                Ok(Self::Reqwest(client.build()?))
            }
            _ => Err(USAGE.into()),
        }
    }

    async fn post(&self, url: &str, body: Vec<u8>) -> Result<Bytes> {
        match self {
            Self::Hyper(client) => {
                let request = Request::post(url).body(body.into())?;
                let response = client.request(request).await?;
                match response.status() {
                    StatusCode::OK => Ok(response.into_body().collect().await?.to_bytes()),
                    status => Err(format!("{status}").into()),
                }
            }
            Self::Reqwest(client) => {
                let response = client.post(url).body(body).send().await?;
                Ok(response.error_for_status()?.bytes().await?)
            }
        }
    }
}

async fn answer(Path(number): Path<usize>, body: Bytes) -> (StatusCode, Vec<u8>) {
    if body != payload("client", number) {
        return (StatusCode::BAD_REQUEST, b"another request".to_vec());
    }
    (StatusCode::OK, payload("server", number + 3))
}

async fn ask(client: &Client, port: u16, number: usize) -> Result<()> {
    let url = format!("https://localhost:{port}/{number}");
    let answer = client.post(&url, payload("client", number)).await?;
    if answer != payload("server", number + 3) {
        return Err(format!("request {number} got the answer of another one").into());
    }
    Ok(())
}

async fn ask_on(client: Client, port: u16, next: Arc<AtomicUsize>, count: usize) -> Result<()> {
    loop {
        let number = next.fetch_add(1, Relaxed);
        if number >= count {
            return Ok(());
        }
        ask(&client, port, number).await?;
    }
}

fn run() -> Result<()> {
    let mut args = Args::default();
    let mut runtime = Builder::new_current_thread();
    let name = loop {
        match args.own()?.ok_or(USAGE)?.as_str() {
            "--threads" => {
                runtime = Builder::new_multi_thread();
                runtime.worker_threads(args.number("--threads")?);
            }
            name => break name.to_string(),
        }
    };
    let version = args.value("1 or 2")?;
    let count = args.number("N")?;
    let truth = Arc::new(args.truth("")?);
    let (mut server, certificate) = args.tls.server()?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = Client::new(&name, &version, args.tls.client(certificate)?)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    let runtime = runtime.enable_all().build()?;
    ready(args)?;

    runtime.block_on(async {
        let witnesses = Witnesses::new(listener, server, truth.clone())?;
        let router = Router::new().route("/{number}", post(answer));
        tokio::spawn(axum::serve(witnesses, router).into_future());
        // Those that come at once would open a connection each, also for HTTP/2.
        ask(&client, port, 0).await?;
        let next = Arc::new(AtomicUsize::new(1));
        let mut asking = JoinSet::new();
        for _ in 0..AT_ONCE {
            asking.spawn(ask_on(client.clone(), port, next.clone(), count));
        }
        while let Some(done) = asking.join_next().await {
            done??;
        }
        // Behind its answer, which is short, nothing is on the way any more.
        ask(&client, port, 1).await?;
        Result::Ok(())
    })?;
    // Whatever a thread has still to write down is written when it has stopped.
    drop(runtime);
    truth.save()
}

fn main() -> ExitCode {
    finish(run())
}
