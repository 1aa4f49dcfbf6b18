//! A server that answers each message after a known delay: what a load must measure.
//!
//! `delay_server PORT MESSAGE_BYTES SHORT_US LONG_US EVERY` echoes each message SHORT_US after its
//! last byte has come, and every EVERY-th after LONG_US. It has a thread for each connection and
//! spins until the moment, so that no timer's slack is in the delay. `scripts/cross_check.sh` runs
//! it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

static MESSAGES: AtomicU64 = AtomicU64::new(0);

fn main() {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<u64>());
    let mut next = || numbers.next().and_then(Result::ok);
    let (Some(port), Some(bytes), Some(short), Some(long), Some(every)) =
        (next(), next(), next(), next(), next())
    else {
        eprintln!("usage: delay_server PORT MESSAGE_BYTES SHORT_US LONG_US EVERY");
        std::process::exit(2);
    };
    let listener = match TcpListener::bind(("127.0.0.1", port as u16)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("delay_server: port {port}: {error}; choose another");
            std::process::exit(1);
        }
    };
    for stream in listener.incoming().map_while(Result::ok) {
        std::thread::spawn(move || serve(stream, bytes as usize, [short, long], every.max(1)));
    }
}

fn serve(mut stream: TcpStream, bytes: usize, [short, long]: [u64; 2], every: u64) {
    let mut message = vec![0; bytes];
    let _ = stream.set_nodelay(true);
    while stream.read_exact(&mut message).is_ok() {
        let due = Instant::now();
        let number = MESSAGES.fetch_add(1, Ordering::Relaxed) + 1;
        let delay = if number.is_multiple_of(every) { long } else { short };
        while due.elapsed() < Duration::from_micros(delay) {
            std::hint::spin_loop();
        }
        if stream.write_all(&message).is_err() {
            return;
        }
    }
}
