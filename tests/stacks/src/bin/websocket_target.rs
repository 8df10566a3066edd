// SPDX-License-Identifier: GPL-2.0-only

//! WebSocket by tokio-tungstenite: both ends of many connections, on one
//! thread. In: the number of connections. Out: the truth file; the client has
//! its TLS from the library, and the server's witness speaks for it. It must
//! never end a connection without WebSocket's own farewell.

use std::any::Any;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use tlssnoop_rustls_targets::{Args, Result, finish, ready};
use tlssnoop_stacks_targets::{Witness, Witnesses, payload};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio_tungstenite::{Connector, accept_async, connect_async_tls_with_config};

const USAGE: &str =
    "usage: websocket_target --truth FILE [--tls 1.2|1.3] [--suite aes128|aes256|chacha] N";
const ROUNDS: usize = 11;

/// A connection that is not used any more.
type Done = Box<dyn Any + Send>;

async fn client(url: String, tls: Connector) -> Result<Done> {
    let (mut socket, _) = connect_async_tls_with_config(url, None, true, Some(tls)).await?;
    for round in 0..ROUNDS {
        socket.send(payload("client", round).into()).await?;
        let answer = socket.next().await.ok_or("it ended")??;
        if answer.into_data() != payload("server", round + 3) {
            return Err(format!("message {round}: another answer").into());
        }
    }
    socket.close(None).await?;
    match socket.next().await {
        Some(Ok(message)) if message.is_close() => Ok(Box::new(socket)),
        _ => Err("no farewell".into()),
    }
}

async fn server(witness: Witness) -> Result<Done> {
    let mut socket = accept_async(witness).await?;
    let mut round = 0;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_close() {
            continue;
        }
        if message.into_data() != payload("client", round) {
            return Err(format!("message {round}: another one").into());
        }
        socket.send(payload("server", round + 3).into()).await?;
        round += 1;
    }
    Ok(Box::new(socket))
}

fn run() -> Result<()> {
    let mut args = Args::default();
    let count: usize = args.own()?.ok_or(USAGE)?.parse().map_err(|_| USAGE)?;
    let truth = Arc::new(args.truth("")?);
    let (server_config, certificate) = args.tls.server()?;
    let tls = Connector::Rustls(Arc::new(args.tls.client(certificate)?));
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let url = format!("wss://localhost:{}/", listener.local_addr()?.port());
    let runtime = Builder::new_current_thread().enable_all().build()?;
    ready(args)?;

    runtime.block_on(async {
        let witnesses = Witnesses::new(listener, server_config, truth.clone())?;
        let mut ends = JoinSet::new();
        for _ in 0..count {
            ends.spawn(client(url.clone(), tls.clone()));
        }
        for _ in 0..count {
            ends.spawn(server(witnesses.next().await));
        }
        // Open to the end, so that no descriptor comes again.
        let mut done = Vec::new();
        while let Some(end) = ends.join_next().await {
            done.push(end??);
        }
        Result::Ok(())
    })?;
    truth.save()
}

fn main() -> ExitCode {
    finish(run())
}
