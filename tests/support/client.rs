//! A client that knows what must come back and compares every byte of it.

use super::{PATIENCE, Sizes, eventually};
use ringmark::address::Address;
use ringmark::echo::{MAX_SLICE, Stream};
use ringmark::service::{GREETING_BYTES, streams};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a write may wait before [`Sender::send_until_stalled`] takes the connection to be full.
/// Too short only makes the pressure smaller than it could be.
const STALL: Duration = Duration::from_millis(200);

/// A connection whose two directions may be used by two threads. Dropping it closes it.
pub struct Client {
    pub sender: Sender,
    pub receiver: Receiver,
    /// Bytes of a request and of a response, if it has greeted a server of conversations.
    sizes: Option<Sizes>,
}

/// The direction to the server.
pub struct Sender {
    socket: Arc<Socket>,
    /// The connection's number.
    pub number: u64,
    stream: Stream,
    pub bytes: u64,
}

/// The direction from the server.
pub struct Receiver {
    socket: Arc<Socket>,
    stream: Stream,
    pub bytes: u64,
}

impl Client {
    /// Connects; the bytes of each connection of this process differ from all others'.
    pub fn connect(address: &Address) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// Connects with a receive buffer of a few kilobytes, so that the server soon cannot send to
    /// it.
    pub fn connect_narrow(address: &Address) -> Self {
        Self::connect_with(address, |socket| socket.set_recv_buffer_size(8192))
            .unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// The same with small segments, for a client that takes much. A narrow window holds less than
    /// one of loopback's size, and then TCP may send by its timers: five segments a second.
    pub fn connect_narrow_to_much(address: &Address) -> Self {
        let narrow = |socket: &Socket| {
            if address.ip().is_some() {
                socket.set_tcp_mss(1024)?;
            }
            socket.set_recv_buffer_size(8192)
        };
        Self::connect_with(address, narrow)
            .unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// Connects from `source`, an address of this host. Its port is chosen by what is free for the
    /// whole pair of addresses (IP_BIND_ADDRESS_NO_PORT, ip(7)).
    pub fn connect_from(source: Ipv4Addr, address: &Address) -> Self {
        let from = |socket: &Socket| {
            no_port_yet(socket)?;
            socket.bind(&SocketAddr::from((source, 0)).into())
        };
        Self::connect_with(address, from)
            .unwrap_or_else(|error| panic!("connect from {source} to {address}: {error}"))
    }

    /// Asks for a connection without waiting for it: the first send does.
    pub fn begin_to_connect(address: &Address) -> Self {
        let begin = || {
            let (socket, place) = socket_for(address)?;
            socket.set_nonblocking(true)?;
            match socket.connect(&place) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
                _ => {}
            }
            socket.set_nonblocking(false)?;
            Ok(Self::over(socket))
        };
        begin().unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// Connects, or says why not.
    pub fn try_connect(address: &Address) -> io::Result<Self> {
        Self::connect_with(address, |_| Ok(()))
    }

    /// Waits until nobody listens there any more.
    pub fn wait_until_refused(address: &Address) {
        let refusal = || Self::try_connect(address).err();
        eventually("new connections are refused", refusal, Option::is_some);
    }

    /// Connects by a socket that was made ready.
    fn connect_with(
        address: &Address,
        make_ready: impl Fn(&Socket) -> io::Result<()>,
    ) -> io::Result<Self> {
        let (socket, place) = socket_for(address)?;
        make_ready(&socket)?;
        socket.connect(&place)?;
        Ok(Self::over(socket))
    }

    fn over(socket: Socket) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let socket = Arc::new(socket);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let stream = Stream::new(number);
        Self {
            sender: Sender { socket: Arc::clone(&socket), number, stream, bytes: 0 },
            receiver: Receiver { socket, stream, bytes: 0 },
            sizes: None,
        }
    }

    /// Greets a server of conversations of these sizes, if they are given.
    pub fn greeting(mut self, sizes: Option<Sizes>) -> Self {
        if sizes.is_some() {
            self.sender.greet_by(GREETING_BYTES, &mut self.receiver);
        }
        Self { sizes, ..self }
    }

    /// How many bytes come back in all for so many that were sent.
    fn due(&self, sent: u64) -> u64 {
        self.sizes.map_or(sent, |Sizes(request, response)| sent / request * response)
    }

    /// How many bytes are to come back for those that were sent.
    pub fn owed(&self) -> usize {
        (self.due(self.sender.bytes) - self.receiver.bytes) as usize
    }

    /// How many bytes may be sent so that no more than `most` are owed then, up to `most`.
    pub fn room(&self, most: usize) -> usize {
        let left = most.saturating_sub(self.owed());
        match self.sizes {
            None => left,
            Some(Sizes(_, 0)) => most,
            // The rest of a request is not known here: one request less.
            Some(Sizes(request, response)) => {
                let requests = (left as u64 / response).saturating_sub(1);
                ((requests * request) as usize).min(most)
            }
        }
    }

    /// Sends `bytes` and takes them back. Only for what fits into socket buffers: nothing is read
    /// before all is written.
    pub fn echo(&mut self, bytes: usize) {
        self.sender.send(bytes);
        self.receiver.receive(bytes);
    }

    /// Sends `bytes` while taking back what comes for them: for any length.
    pub fn exchange(&mut self, bytes: usize) {
        let due = self.due(self.sender.bytes + bytes as u64) - self.due(self.sender.bytes);
        let Self { sender, receiver, .. } = self;
        std::thread::scope(|scope| {
            scope.spawn(|| sender.send(bytes));
            receiver.receive(due as usize);
        });
    }

    /// Takes back all that was sent and has not come yet.
    pub fn receive_owed(&mut self) {
        self.receiver.receive(self.owed());
    }

    /// Says that no more will be sent, and takes back the rest: all of it, and then the end.
    pub fn finish(mut self) {
        self.sender.finish();
        let received = self.receiver.receive_to_end();
        assert_eq!(
            received,
            self.due(self.sender.bytes),
            "the server closed before it had sent all that it owed"
        );
    }

    /// Closes with a reset instead of the orderly end.
    pub fn reset(self) {
        self.sender.socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER is set");
    }
}

/// A socket for this address, and the address as the kernel takes it.
fn socket_for(address: &Address) -> io::Result<(Socket, SockAddr)> {
    let (domain, place) = match address {
        Address::Ip(address) => (Domain::for_address(*address), (*address).into()),
        Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    if address.ip().is_some() {
        socket.set_tcp_nodelay(true)?;
    }
    socket.set_read_timeout(Some(*PATIENCE))?;
    // It bounds connect(2) as well (socket(7), SO_SNDTIMEO).
    socket.set_write_timeout(Some(*PATIENCE))?;
    Ok((socket, place))
}

/// Lets bind(2) leave the choice of the port to connect(2).
fn no_port_yet(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads as many bytes of `on` as it is told, and it lives across the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Sender {
    /// Sends the greeting of a conversation whose responses `receiver` gets, so many bytes at a
    /// time.
    pub fn greet_by(&mut self, bytes: usize, receiver: &mut Receiver) {
        let number = self.number;
        number.to_le_bytes().chunks(bytes).for_each(|part| self.raw(part));
        [self.stream, receiver.stream] = streams(number);
    }

    /// Sends one byte that is not the next one.
    pub fn send_wrong(&self) {
        let [next, ..] = self.stream.peek(1) else { panic!("a stream has no end") };
        self.raw(&[!next]);
    }

    /// Sends these bytes, which are not counted.
    pub fn raw(&self, bytes: &[u8]) {
        (&*self.socket).write_all(bytes).expect("bytes are sent");
    }

    /// Sends the next `bytes` of the stream.
    pub fn send(&mut self, bytes: usize) {
        self.try_send(bytes)
            .unwrap_or_else(|error| panic!("send after {} bytes: {error}", self.bytes));
    }

    /// Sends the next `bytes` of the stream, or says why not.
    pub fn try_send(&mut self, bytes: usize) -> io::Result<()> {
        let end = self.bytes + bytes as u64;
        while self.bytes < end {
            self.send_some((end - self.bytes) as usize)?;
        }
        Ok(())
    }

    /// Sends the next `bytes` of the stream, at most [`MAX_SLICE`], the last of them urgent
    /// (tcp(7), MSG_OOB).
    pub fn send_urgent(&mut self, bytes: usize) {
        let sent =
            self.socket.send_out_of_band(self.stream.peek(bytes)).expect("urgent data is sent");
        assert_eq!(sent, bytes, "urgent data is sent whole");
        self.stream.advance(sent);
        self.bytes += sent as u64;
    }

    /// Sends until nothing more is taken, at most `limit` bytes.
    pub fn send_until_stalled(&mut self, limit: usize) {
        let end = self.bytes + limit as u64;
        self.socket.set_write_timeout(Some(STALL)).expect("a time-out is set");
        while self.bytes < end {
            match self.send_some((end - self.bytes) as usize) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("send after {} bytes: {error}", self.bytes),
            }
        }
        self.socket.set_write_timeout(Some(*PATIENCE)).expect("a time-out is set");
    }

    /// Says that no more will be sent.
    pub fn finish(&self) {
        self.try_finish().expect("shutdown for writing");
    }

    /// Says that no more will be sent, or says why it cannot.
    pub fn try_finish(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    fn send_some(&mut self, bytes: usize) -> io::Result<()> {
        let written = (&*self.socket).write(self.stream.peek(bytes))?;
        self.stream.advance(written);
        self.bytes += written as u64;
        Ok(())
    }
}

impl Receiver {
    /// Takes exactly `bytes`, each compared with what was sent.
    pub fn receive(&mut self, bytes: usize) {
        let end = self.bytes + bytes as u64;
        while self.bytes < end {
            let taken = self.receive_some((end - self.bytes) as usize);
            assert!(
                taken > 0,
                "the connection ended after {} bytes, {} before all",
                self.bytes,
                end - self.bytes
            );
        }
    }

    /// Waits until there is something to take.
    pub fn wait_for_some(&self) {
        let there = self.socket.peek(&mut [MaybeUninit::uninit()]).expect("a byte comes");
        assert_eq!(there, 1, "the connection ended after {} bytes", self.bytes);
    }

    /// Takes until nothing more comes, at most `limit` bytes.
    pub fn receive_until_stalled(&mut self, limit: usize) {
        let end = self.bytes + limit as u64;
        self.socket.set_read_timeout(Some(STALL)).expect("a time-out is set");
        while self.bytes < end {
            match self.try_receive_some((end - self.bytes) as usize) {
                Ok(taken) => assert!(taken > 0, "the connection ended after {} bytes", self.bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("receive after {} bytes: {error}", self.bytes),
            }
        }
        self.socket.set_read_timeout(Some(*PATIENCE)).expect("a time-out is set");
    }

    /// Goes on as if `bytes` had come: for what was lost on purpose.
    pub fn skip(&mut self, bytes: usize) {
        self.stream.advance(bytes);
        self.bytes += bytes as u64;
    }

    /// Takes what comes until the connection ends in whatever way; returns how much that is since
    /// it began.
    pub fn receive_while_open(&mut self) -> u64 {
        while self.try_receive_some(MAX_SLICE).is_ok_and(|taken| taken > 0) {}
        self.bytes
    }

    /// Takes all that comes until the orderly end; returns how much that is since the connection
    /// began.
    pub fn receive_to_end(&mut self) -> u64 {
        while self.receive_some(MAX_SLICE) > 0 {}
        self.bytes
    }

    /// Takes what is there, at most `bytes`, and waits for it if need be; 0 at the end.
    pub fn receive_some(&mut self, bytes: usize) -> usize {
        self.try_receive_some(bytes)
            .unwrap_or_else(|error| panic!("receive after {} bytes: {error}", self.bytes))
    }

    fn try_receive_some(&mut self, bytes: usize) -> io::Result<usize> {
        let mut buffer = [0; MAX_SLICE];
        let limit = bytes.min(MAX_SLICE);
        let taken = (&*self.socket).read(&mut buffer[..limit])?;
        if let Err(wrong) = self.stream.verify(&buffer[..taken]) {
            panic!("after {} bytes: {wrong:?}", self.bytes);
        }
        self.bytes += taken as u64;
        Ok(taken)
    }
}
