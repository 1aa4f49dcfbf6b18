//! Echo on compio, with its io_uring driver.

use common::{BUFFER_BYTES, fail, listen, ready};
use compio::BufResult;
use compio::buf::{IntoInner, IoBuf};
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};

const RUNTIME: &str = env!("RUNTIME");

fn main() {
    let port = common::port(RUNTIME);
    let runtime =
        compio::runtime::Runtime::new().unwrap_or_else(|error| fail("start the runtime", error));
    runtime.block_on(async {
        let listener = TcpListener::from_std(listen(port));
        let listener = listener.unwrap_or_else(|error| fail("listen", error));
        ready(port, RUNTIME);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => compio::runtime::spawn(echo(stream)).detach(),
                Err(error) => eprintln!("accept: {error}"),
            }
        }
    });
}

/// Until the client has closed, or the connection is broken. The kernel owns the buffer while a
/// request is under way.
async fn echo(mut stream: TcpStream) {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let BufResult(outcome, received) = stream.read(buffer).await;
        let Ok(length @ 1..) = outcome else { return };
        let BufResult(outcome, sent) = stream.write_all(received.slice(..length)).await;
        if outcome.is_err() {
            return;
        }
        buffer = sent.into_inner();
    }
}
