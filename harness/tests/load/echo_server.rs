//! A small echo server, a thread a connection, that a test can make misbehave.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// A running server; dropping it ends its threads, once the clients are gone.
pub struct Server {
    pub port: u16,
    /// Bytes received.
    pub bytes: Arc<AtomicU64>,
    open: Arc<AtomicUsize>,
    peers: Arc<Mutex<Vec<(u16, IpAddr)>>>,
    stop: Arc<AtomicBool>,
    acceptors: Vec<JoinHandle<()>>,
}

/// The connection that a handler serves.
pub struct Connection {
    pub stream: TcpStream,
    /// How many were accepted on this port before.
    pub number: usize,
    bytes: Arc<AtomicU64>,
    open: Arc<AtomicUsize>,
}

impl Connection {
    /// Returns the bytes that have come; empty when the client has gone.
    pub fn receive(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; 64 * 1024];
        let length = self.stream.read(&mut buffer).unwrap_or(0);
        self.bytes.fetch_add(length as u64, SeqCst);
        buffer.truncate(length);
        buffer
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.fetch_sub(1, SeqCst);
    }
}

/// The sound handler.
pub fn echo(connection: &mut Connection) {
    loop {
        let bytes = connection.receive();
        if bytes.is_empty() || connection.stream.write_all(&bytes).is_err() {
            return;
        }
    }
}

impl Server {
    /// Listens on `ports` consecutive free ports and serves each connection with `handler`.
    pub fn start(ports: u16, handler: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        raise_file_limit();
        let listeners = std::iter::repeat_with(|| bind(ports)).take(1000).flatten().next().unwrap();
        let mut server = Self {
            port: listeners[0].local_addr().unwrap().port(),
            bytes: Arc::default(),
            open: Arc::default(),
            peers: Arc::default(),
            stop: Arc::default(),
            acceptors: Vec::new(),
        };
        let handler = Arc::new(handler);
        for listener in listeners {
            let (bytes, open) = (server.bytes.clone(), server.open.clone());
            let (peers, stop, handler) =
                (server.peers.clone(), server.stop.clone(), handler.clone());
            let port = listener.local_addr().unwrap().port();
            server.acceptors.push(std::thread::spawn(move || {
                let mut threads = Vec::new();
                for number in 0.. {
                    let (stream, peer) = listener.accept().unwrap();
                    if stop.load(SeqCst) {
                        break;
                    }
                    stream.set_nodelay(true).unwrap();
                    peers.lock().unwrap().push((port, peer.ip()));
                    open.fetch_add(1, SeqCst);
                    let (bytes, open, handler) = (bytes.clone(), open.clone(), handler.clone());
                    threads.push(std::thread::spawn(move || {
                        handler(&mut Connection { stream, number, bytes, open });
                    }));
                }
                for thread in threads {
                    let _ = thread.join();
                }
            }));
        }
        server
    }

    /// HOST:PORT of the first port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Port and source address of every connection so far.
    pub fn peers(&self) -> Vec<(u16, IpAddr)> {
        self.peers.lock().unwrap().clone()
    }

    /// Waits until `count` connections are open here.
    pub fn wait_for_open(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.open.load(SeqCst) != count {
            assert!(Instant::now() < deadline, "{} open, not {count}", self.open.load(SeqCst));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        for (index, acceptor) in self.acceptors.drain(..).enumerate() {
            // Wakes accept().
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port + index as u16));
            let _ = acceptor.join();
        }
    }
}

/// A thousand connections are more than the usual soft limit of 1,024 files carries.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit, which the first call writes and the second reads.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
}

fn bind(ports: u16) -> Option<Vec<TcpListener>> {
    let listen = |port: u16| -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        // Room for all that a test opens at once.
        socket.listen(4096)?;
        Ok(socket.into())
    };
    let first = listen(0).ok()?;
    let port = first.local_addr().ok()?.port();
    let mut listeners = vec![first];
    for offset in 1..ports {
        listeners.push(listen(port.checked_add(offset)?).ok()?);
    }
    Some(listeners)
}
