//! A TCP proxy between a host and its server that does what networks do: it cuts, holds one direction, and is slow.

use super::servers::runtime;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

#[derive(Clone, Copy, Default)]
struct Network {
    /// Where connections lead that are made from now on.
    server: u16,
    /// By direction.
    held: [bool; 2],
    delays: [Duration; 2],
    /// Connections of before the last cut are gone.
    cuts: u64,
}

/// Passes everything on until it is told otherwise.
pub struct Proxy {
    port: u16,
    network: watch::Sender<Network>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    pub fn to(server: u16) -> Self {
        let (network, seen) = watch::channel(Network { server, ..Network::default() });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = runtime().spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, seen.clone()));
            }
        });
        Self { port, network, _task: AbortOnDropHandle::new(task) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Nothing comes through in this direction, and nobody is told.
    pub fn hold(&self, direction: Direction) {
        self.network.send_modify(|network| network.held[direction as usize] = true);
    }

    /// What was held comes through, and all that follows.
    pub fn release(&self) {
        self.network.send_modify(|network| network.held = [false; 2]);
    }

    /// Every connection ends; what was held is lost.
    pub fn cut(&self) {
        self.network.send_modify(|network| network.cuts += 1);
    }

    /// Connections that are made from now on lead there.
    pub fn lead_to(&self, server: u16) {
        self.network.send_modify(|network| network.server = server);
    }

    /// What comes in this direction comes later.
    pub fn delay(&self, direction: Direction, by: Duration) {
        self.network.send_modify(|network| network.delays[direction as usize] = by);
    }
}

async fn connect(client: TcpStream, mut network: watch::Receiver<Network>) {
    let server = network.borrow().server;
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let cuts = network.borrow().cuts;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let of_passes = network.clone();
    tokio::select! {
        // A cut goes before what is released at the same time.
        biased;
        _ = network.wait_for(|network| network.cuts != cuts) => {}
        () = pass(from_client, to_server, of_passes.clone(), Direction::ToServer) => {}
        () = pass(from_server, to_client, of_passes.clone(), Direction::ToClient) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut network: watch::Receiver<Network>,
    direction: Direction,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(bytes @ 1..) = from.read(&mut buffer).await else { return };
        let came = Instant::now();
        if network.wait_for(|network| !network.held[direction as usize]).await.is_err() {
            return;
        }
        let delay = network.borrow().delays[direction as usize];
        tokio::time::sleep_until(came + delay).await;
        if to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}
