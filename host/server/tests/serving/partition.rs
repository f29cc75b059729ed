//! A wire that can be cut: what is sent meanwhile arrives when it is mended, as in a network that drops packets.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards connections to a server until it is cut.
pub(crate) struct Wire {
    address: SocketAddr,
    whole: watch::Sender<bool>,
}

impl Wire {
    /// A wire to the host and port of a connection string.
    pub(crate) async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (whole, _) = watch::channel(true);
        let server = host_of(url).to_owned();
        let state = whole.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let mut cut = state.subscribe();
                let server = server.clone();
                tokio::spawn(async move {
                    if cut.wait_for(|whole| *whole).await.is_err() {
                        return;
                    }
                    let Ok(far) = TcpStream::connect(server).await else {
                        return;
                    };
                    let (near_in, near_out) = near.into_split();
                    let (far_in, far_out) = far.into_split();
                    tokio::join!(pump(near_in, far_out, cut.clone()), pump(far_in, near_out, cut));
                });
            }
        });
        Self { address, whole }
    }

    /// The connection string through this wire.
    pub(crate) fn through(&self, url: &str) -> String {
        url.replace(host_of(url), &self.address.to_string())
    }

    /// Nothing arrives any more.
    pub(crate) fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Everything arrives again.
    pub(crate) fn mend(&self) {
        self.whole.send_replace(true);
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut cut: watch::Receiver<bool>) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if cut.wait_for(|whole| *whole).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    // The other side has said all it had to.
    let _closed = to.shutdown().await;
}

fn host_of(url: &str) -> &str {
    let (_, rest) = url.split_once("://").unwrap();
    rest.split(['/', '?']).next().unwrap()
}
