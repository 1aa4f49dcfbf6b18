//! Echo on monoio, with its io_uring driver.

use common::{BUFFER_BYTES, fail, listen, ready};
use monoio::IoUringDriver;
use monoio::buf::IoBuf;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};

const RUNTIME: &str = env!("RUNTIME");

fn main() {
    let port = common::port(RUNTIME);
    let mut runtime = monoio::RuntimeBuilder::<IoUringDriver>::new()
        .build()
        .unwrap_or_else(|error| fail("start the runtime", error));
    runtime.block_on(async {
        let listener = TcpListener::from_std(listen(port));
        let listener = listener.unwrap_or_else(|error| fail("listen", error));
        ready(port, RUNTIME);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(monoio::spawn(echo(stream))),
                Err(error) => eprintln!("accept: {error}"),
            }
        }
    });
}

/// Until the client has closed, or the connection is broken. The kernel owns the buffer while a
/// request is under way.
async fn echo(mut stream: TcpStream) {
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
