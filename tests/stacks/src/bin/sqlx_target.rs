// SPDX-License-Identifier: GPL-2.0-only

//! A pool of sqlx with 5 connections to a MySQL or MariaDB server, on one
//! thread, and many queries at once. In: the server's URL, in which TLS is
//! demanded. Out: not calls but "query N; FD PORT" for each query: the socket
//! of the connection that the server says has run it. The query's name is in
//! its text, or a value bound to it, and fills its row. Without --truth, which
//! suits a relay in between, it does not ask. It must never name a socket
//! without having asked the server.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::process::ExitCode;

use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use tlssnoop_rustls_targets::{Args, Result, fd_of, finish, ready};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

const USAGE: &str = "usage: sqlx_target [--truth FILE] URL N";
const CONNECTIONS: u32 = 5;

/// Runs query N; returns the server's number of the connection.
async fn ask(pool: MySqlPool, number: usize) -> Result<(usize, u64)> {
    let name = format!("query {number};");
    // Every tenth row takes several records.
    let times = if number.is_multiple_of(10) { 4000 } else { 7 };
    let (row, connection): (String, u64) = if number.is_multiple_of(2) {
        let query = format!("SELECT REPEAT('{name}', {times}), CONNECTION_ID()");
        sqlx::query_as(&query).fetch_one(&pool).await?
    } else {
        let query = "SELECT REPEAT(?, ?), CONNECTION_ID()";
        let query = sqlx::query_as(query).bind(&name).bind(times as i64);
        query.fetch_one(&pool).await?
    };
    if row != name.repeat(times) {
        return Err(format!("{name} got the row of another one: {row:.40}").into());
    }
    Ok((number, connection))
}

/// The server's connections, and the sockets that they are here.
async fn sockets(pool: &MySqlPool) -> Result<HashMap<u64, (RawFd, u16)>> {
    let query = "SELECT CAST(id AS UNSIGNED), host FROM information_schema.processlist \
                 WHERE host LIKE '127.0.0.1:%'";
    let rows: Vec<(u64, String)> = sqlx::query_as(query).fetch_all(pool).await?;

    rows.into_iter()
        .map(|(connection, host)| {
            let local: SocketAddr = host.parse()?;
            Ok((connection, (fd_of(local)?, local.port())))
        })
        .collect()
}

/// Returns which connection of the server ran which query.
async fn run_queries(pool: &MySqlPool, count: usize) -> Result<Vec<(usize, u64)>> {
    let mut queries = JoinSet::new();
    let mut done = Vec::new();

    for number in 0..count {
        queries.spawn(ask(pool.clone(), number));
    }
    while let Some(query) = queries.join_next().await {
        done.push(query??);
    }
    Ok(done)
}

async fn where_they_ran(pool: &MySqlPool, done: Vec<(usize, u64)>) -> Result<String> {
    let sockets = sockets(pool).await?;
    if sockets.len() != CONNECTIONS as usize {
        return Err(format!("{} connections", sockets.len()).into());
    }
    let lines = done.into_iter().map(|(number, connection)| {
        let (fd, port) = sockets[&connection];
        format!("query {number}; {fd} {port}\n")
    });
    Ok(lines.collect())
}

fn run() -> Result<()> {
    let mut args = Args::default();
    let options: MySqlConnectOptions = args.own()?.ok_or(USAGE)?.parse()?;
    let count = args.number("N")?;
    let truth = args.truth("").ok();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    ready(args)?;

    runtime.block_on(async {
        let pool = MySqlPoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect_with(options)
            .await?;
        let done = run_queries(&pool, count).await?;
        if let Some(truth) = truth {
            truth.replace(where_they_ran(&pool, done).await?)?;
        }
        pool.close().await;
        Ok(())
    })
}

fn main() -> ExitCode {
    finish(run())
}
