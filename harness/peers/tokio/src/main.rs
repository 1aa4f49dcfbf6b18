//! Echo on tokio, on the runtime that has one thread.

use common::{BUFFER_BYTES, fail, listen, ready};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const RUNTIME: &str = env!("RUNTIME");

fn main() {
    let port = common::port(RUNTIME);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap_or_else(|error| fail("start the runtime", error));
    runtime.block_on(async {
        let listener = TcpListener::from_std(listen(port));
        let listener = listener.unwrap_or_else(|error| fail("listen", error));
        ready(port, RUNTIME);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(echo(stream))),
                Err(error) => eprintln!("accept: {error}"),
            }
        }
    });
}

/// Until the client has closed, or the connection is broken.
async fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
