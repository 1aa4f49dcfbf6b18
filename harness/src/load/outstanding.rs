//! Messages that a server still owes, and likely causes.

/// Messages that a server still owes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outstanding {
    pub messages: u64,
    pub bytes: u64,
    /// Connections on which it owes something, or that it has not taken yet.
    pub connections: u64,
    /// Those of them on which no byte ever came back.
    pub unanswered: u64,
}

/// The bounds of a server's accept queue.
pub const ACCEPT_QUEUE: &str = "listen()'s backlog and net.core.somaxconn bound it";

/// Returns the likely cause of echoes that are owed on so many connections. On some of them no echo
/// may ever have come: the kernel opens a connection before the server accepts it.
pub fn why_owed(connections: usize, unanswered: usize) -> String {
    let lost = "the server lost bytes, is stuck or is gone";
    let never = format!(
        "does the server not accept, for a full accept queue ({ACCEPT_QUEUE}) or for want of files \
         (its `ulimit -n`), or never answer?"
    );
    match unanswered {
        0 => lost.to_owned(),
        all if all == connections => format!("no echo ever came on them: {never}"),
        some => format!("no echo ever came on {some} of them: {never} On the others {lost}"),
    }
}
