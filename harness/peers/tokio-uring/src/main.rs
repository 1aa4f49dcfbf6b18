//! Echo on tokio-uring.

use common::{BUFFER_BYTES, listen, ready};
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};

const RUNTIME: &str = env!("RUNTIME");

fn main() {
    let port = common::port(RUNTIME);
    tokio_uring::start(async {
        let listener = TcpListener::from_std(listen(port));
        ready(port, RUNTIME);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio_uring::spawn(echo(stream))),
                Err(error) => eprintln!("accept: {error}"),
            }
        }
    });
}

/// Until the client has closed, or the connection is broken. The kernel owns the buffer while a
/// request is under way.
async fn echo(stream: TcpStream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let (outcome, received) = stream.read(buffer).await;
        let Ok(length @ 1..) = outcome else { return };
        let (outcome, sent) = stream.write_all(received.slice(..length)).await;
        if outcome.is_err() {
            return;
        }
        buffer = sent.into_inner();
    }
}
