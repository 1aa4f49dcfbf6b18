//! Echo on glommio. It listens by itself, because its listener takes no socket from elsewhere.

use common::{BUFFER_BYTES, address, fail, ready};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::LocalExecutorBuilder;
use glommio::net::{TcpListener, TcpStream};

const RUNTIME: &str = env!("RUNTIME");

fn main() {
    let port = common::port(RUNTIME);
    let executor = LocalExecutorBuilder::default()
        .make()
        .unwrap_or_else(|error| fail("start the runtime", error));
    executor.run(async {
        let listener = TcpListener::bind(address(port));
        let listener = listener.unwrap_or_else(|error| fail("listen", error));
        ready(port, RUNTIME);
        loop {
            match listener.accept().await {
                Ok(stream) => drop(glommio::spawn_local(echo(stream)).detach()),
                Err(error) => eprintln!("accept: {error}"),
            }
        }
    });
}

/// Until the client has closed, or the connection is broken.
async fn echo(mut stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
